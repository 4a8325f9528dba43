# CPU:  docker build --tag lcm-distill .
# CUDA: docker build --tag lcm-distill:cuda --build-arg TORCH=cuda .
# Run:  docker run --rm --volume "$PWD/runs:/work/runs" lcm-distill run --preset shapes
#       CUDA: with --gpus all --ipc=host, as ranks exchange gradients in shared memory
# Page: docker run --rm --publish 127.0.0.1:7860:7860 lcm-distill serve --host 0.0.0.0
#
# The Python that constraints.txt is tested with (docs/versions.md).
FROM python:3.11-slim

# `cpu`: PyTorch's wheels without CUDA; `cuda`: those of PyPI, which bring CUDA along, and a compiler for Triton's kernels.
ARG TORCH=cpu
RUN case "$TORCH" in \
        cpu) ;; \
        cuda) apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/* ;; \
        *) echo "TORCH is $TORCH: it must be cpu or cuda" >&2; exit 1 ;; \
    esac

WORKDIR /opt/lcm-distill
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
RUN if [ "$TORCH" = cpu ]; then more="--extra-index-url https://download.pytorch.org/whl/cpu"; fi && \
    pip install --no-cache-dir --constraint constraints.txt $more '.[cloud,onnx,ui]'

WORKDIR /work
ENV OMP_WAIT_POLICY=passive
ENTRYPOINT ["lcm"]
