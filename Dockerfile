# One image for every process: the command chooses which. Runs as an ordinary user, keeps no state.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY meterscope meterscope
COPY services services
COPY gateway gateway
RUN python -m venv /opt/meterscope \
 && /opt/meterscope/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.11-slim-bookworm
# /state is where docker-compose.yml mounts the collector's volume first, so that it gets this owner.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin meterscope \
 && install --directory --owner 10001 /state
COPY --from=build /opt/meterscope /opt/meterscope
ENV PATH=/opt/meterscope/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
# For example: python -m services.usage serve --migrate | python -m services.usage work | python -m gateway
CMD ["meterscope", "--help"]
