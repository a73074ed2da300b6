# A static binary and a data directory, nothing else: no shell, no root.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /out/comqtt ./cmd/comqtt \
 && mkdir -p /out/data

FROM scratch
COPY --from=build /out/comqtt /comqtt
COPY --from=build --chown=65532:65532 --chmod=0700 /out/data /data
USER 65532:65532
VOLUME /data
ENV COMQTT_DATA=/data \
    COMQTT_TCP=:1883 \
    COMQTT_WS=:1882 \
    COMQTT_HTTP=:8080
EXPOSE 1883 1882 8080
# Outside its own network namespace a container is on the network, so it starts
# only with COMQTT_ALLOW_ANONYMOUS=true or with listeners on loopback:
#   docker run -e COMQTT_ALLOW_ANONYMOUS=true -p 127.0.0.1:1883:1883 -v comqtt:/data comqtt
ENTRYPOINT ["/comqtt"]
