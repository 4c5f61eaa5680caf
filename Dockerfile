# The page of `hps-seg demo`, on http://localhost:7860:
#   docker build -t hps-seg .                               # for a CPU
#   docker build -t hps-seg --build-arg DEVICE=cuda .       # for NVIDIA GPUs: docker run --gpus all
#   docker run --rm -p 127.0.0.1:7860:7860 -v hps-seg:/home/user/.cache hps-seg --model cat-seg-base
FROM python:3.12-slim

ARG DEVICE=cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# What changes rarely comes first, so that Docker keeps it.
COPY requirements.txt ./
COPY cat_seg/app/requirements.txt cat_seg/app/
# The versions are those that requirements.txt, in the next command, allows.
# hadolint ignore=DL3013
RUN case "$DEVICE" in \
        cpu) pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu ;; \
        cuda) ;; \
        *) echo "DEVICE is $DEVICE: give cpu or cuda" >&2; exit 2 ;; \
    esac \
    && pip install -r requirements.txt -r cat_seg/app/requirements.txt
COPY tools/install_detectron2.py tools/detectron2_license.txt tools/
COPY cat_seg/utils/compatibility.py cat_seg/utils/
RUN python tools/install_detectron2.py

COPY . .
RUN pip install --no-deps . \
    && useradd --create-home --uid 1000 user \
    && mkdir /home/user/.cache \
    && chown user:user /home/user/.cache

# Models are downloaded to ~/.cache; keep it in a volume.
USER 1000
WORKDIR /home/user
EXPOSE 7860
HEALTHCHECK --start-period=10m \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860', timeout=5)"]
ENTRYPOINT ["hps-seg", "demo", "--host", "0.0.0.0"]
CMD ["--model", "cat-seg-base"]
