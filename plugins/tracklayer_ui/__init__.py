"""What people and programs see of Tracklayer inside Airflow."""
