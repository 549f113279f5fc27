# The demo on a CPU:
#   docker build -t fastbsn . && docker run --rm -v "$PWD/demo:/demo" fastbsn
# or any other command: docker run --rm -v "$PWD:/data" fastbsn fastbsn denoise /data/noisy -o /data/clean
# With --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's index of CPU builds> the image has no CUDA libraries in it and is several GB smaller.
FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL
ENV FASTBSN_CUDA=0
WORKDIR /src
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt scikit-image
COPY . .
RUN pip install --no-cache-dir .
WORKDIR /
CMD ["python", "-m", "fastbsn.demo", "-o", "/demo/before_after.png"]
