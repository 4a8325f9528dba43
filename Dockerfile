# CPU:  docker build --tag lcm-distill .
# CUDA: docker build --tag lcm-distill:cuda --build-arg TORCH=cuda .
# Run:  docker run --rm --volume "$PWD/runs:/work/runs" lcm-distill run --preset shapes     (CUDA: with --gpus all)
FROM python:3.12-slim

# `cpu`: PyTorch's wheels without CUDA; `cuda`: those of PyPI, which bring CUDA along, and a compiler for Triton's kernels.
ARG TORCH=cpu
RUN if [ "$TORCH" = cuda ]; then \
        apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi

WORKDIR /opt/lcm-distill
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN if [ "$TORCH" = cpu ]; then more="--extra-index-url https://download.pytorch.org/whl/cpu"; fi && \
    pip install --no-cache-dir --constraint constraints.txt $more '.[cloud,onnx,ui]'

WORKDIR /work
ENV OMP_WAIT_POLICY=passive
ENTRYPOINT ["lcm"]
