"""The HTTP API of the platform, mounted into Airflow's web server."""
