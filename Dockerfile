# onnxslim in a container. --user lets it write to the folder that is mounted, whoever owns that:
#   docker build -t onnxslim .
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" onnxslim quantize model.onnx --calib reviews
FROM python:3.13-slim AS build
COPY . /src
RUN python -m venv /opt/onnxslim && /opt/onnxslim/bin/pip install --no-cache-dir /src

FROM python:3.13-slim
COPY --from=build /opt/onnxslim /opt/onnxslim
ENV PATH=/opt/onnxslim/bin:$PATH ORT_DISABLE_TELEMETRY=1 ONNXSLIM_BERT_QUIET=1
RUN useradd --create-home onnxslim
USER onnxslim
WORKDIR /work
ENTRYPOINT ["onnxslim"]
CMD ["--help"]
