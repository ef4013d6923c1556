# docker build -t face106 . && docker run --rm -v "$PWD/photos:/photos" face106 --indir /photos --outdir /photos/outputs
#
# The steps are those of a machine without Docker: the Makefile installs, so the two cannot drift apart. With a GPU:
# docker run --gpus all ...
FROM python:3.11-slim

RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /app

# first what changes seldom: the environment is built again only when these two change
COPY Makefile requirements.txt ./
RUN make install

COPY . .

# `make demo` with the reader's own arguments; --entrypoint make ... test runs the tests
ENTRYPOINT [".venv/bin/python", "demo.py"]
CMD ["--indir", "examples/imgs/", "--outdir", "examples/outputs/", "--nClasses", "106", "--save_img"]
