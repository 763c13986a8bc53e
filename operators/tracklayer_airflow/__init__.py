"""The Airflow layer of Tracklayer: bundle, DAG builder, operators."""
