#!/bin/sh
# One database for each service; PostgreSQL's image runs this once, when its volume is empty.
set -eu
for database in mlflow mlflow_auth prefect; do
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --command "CREATE DATABASE $database"
done
