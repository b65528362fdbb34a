#!/bin/sh
# Runs once, in an empty data folder: a role and a database of its own for each service.
set -eu
for service in usage billing payments alerts; do
  psql --username postgres --set ON_ERROR_STOP=1 --set role="$service" --set password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role";
SQL
done
# The rollup names whoever holds its horizon (pg_stat_activity).
psql --username postgres --set ON_ERROR_STOP=1 --command 'GRANT pg_read_all_stats TO usage'
