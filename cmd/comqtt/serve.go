package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wind-c/comqtt/v3/broker/admin"
	"github.com/wind-c/comqtt/v3/broker/listeners"
)

// defaultDataDir is used without --data, COMQTT_DATA and STATE_DIRECTORY.
const defaultDataDir = "./comqtt-data"

func (p *program) serveCommand() *cli.Command {
	opts := options(p.defaultData())
	return &cli.Command{
		Name:               "serve",
		CustomHelpTemplate: serveHelp(opts),
		OnUsageError:       usageErrorOf(flagNames(opts)),
		Flags:              flags(opts),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			s, err := p.readSettings(c, opts)
			if err != nil {
				return err
			}
			return p.serve(s, p.logger(s, opts))
		},
	}
}

// defaultData is the directory that systemd's StateDirectory= made, of which
// there may be several, or one beside the caller.
func (p *program) defaultData() string {
	dirs, _ := p.lookupEnv("STATE_DIRECTORY")
	if dir, _, _ := strings.Cut(dirs, ":"); dir != "" {
		return dir
	}
	return defaultDataDir
}

// logger writes to standard error. It begins with what looks like a mistake in
// the environment.
func (p *program) logger(s *settings, opts []option) *slog.Logger {
	ho := &slog.HandlerOptions{Level: s.logLevel}
	log := slog.New(slog.NewTextHandler(p.stderr, ho))
	if s.logFormat == "json" {
		log = slog.New(slog.NewJSONHandler(p.stderr, ho))
	}
	meant := p.misspelled(opts)
	for _, wrong := range slices.Sorted(maps.Keys(meant)) {
		log.Warn("unknown environment variable, ignored", "variable", wrong, "meant", meant[wrong])
	}
	return log
}

// serve runs the broker until it is told to stop. Every address is bound before
// the data directory is touched, so that a taken port costs nothing.
func (p *program) serve(s *settings, log *slog.Logger) error {
	srv, err := newBroker(s, log)
	if err != nil {
		return err
	}
	l := &life{p: p, s: s, log: log, srv: srv}
	bound, err := bindMQTT(s, log, srv)
	if err != nil {
		return errors.Join(err, srv.Close(context.Background()))
	}
	if s.http != "" {
		health := admin.New(admin.Options{Addr: s.http, Version: version(), Logger: log, Status: func() admin.Status {
			return srv.describe(l.status())
		}})
		if err := health.Listen(); err != nil {
			return errors.Join(err, srv.Close(context.Background()))
		}
		bound.http = health.Address()
		answered := make(chan error, 1)
		go func() { answered <- health.Serve() }()
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), healthCloseTimeout)
			defer cancel()
			if cerr := errors.Join(health.Close(ctx), <-answered); cerr != nil {
				log.Warn("health endpoints", "error", cerr)
			}
		}()
	}
	var socket *adminSocket
	defer func() { socket.close(log) }()
	l.announce = func() {
		socket = openSocket(bound.data, srv, log)
		if _, err := fmt.Fprint(p.stdout, banner(s, srv.recovered(), bound)); err != nil {
			log.Warn("banner not written", "error", err)
		}
	}
	return l.run()
}

// bindMQTT binds the MQTT listeners. Their ids are the names of their flags.
func bindMQTT(s *settings, log *slog.Logger, srv *brokerServer) (*addresses, error) {
	data, err := filepath.Abs(s.data)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	bound := &addresses{data: data}
	if s.tcp != "" {
		l := listeners.NewTCP("tcp", s.tcp)
		l.Logger = log
		if err := srv.AddListener(l); err != nil {
			return nil, err
		}
		bound.tcp = l.Address()
	}
	var secure *tls.Config
	if s.tls != "" || s.wss != "" {
		cert, err := listeners.LoadCertificate(s.tlsFiles, log)
		if err != nil {
			return nil, &exitError{code: exitConfig, err: err}
		}
		secure = cert.Config()
	}
	if s.tls != "" {
		l := listeners.NewTLS("tls", s.tls, secure)
		l.Logger = log
		if err := srv.AddListener(l); err != nil {
			return nil, err
		}
		bound.tls = l.Address()
	}
	if s.wss != "" {
		l := listeners.NewWebsocket("wss", s.wss, listeners.DefaultWebsocketPath)
		l.TLS, l.Logger = secure, log
		if err := srv.AddListener(l); err != nil {
			return nil, err
		}
		bound.wss, bound.wsPath = l.Address(), l.Path()
	}
	if s.ws != "" {
		l := listeners.NewWebsocket("ws", s.ws, listeners.DefaultWebsocketPath)
		l.Logger = log
		if err := srv.AddListener(l); err != nil {
			return nil, err
		}
		bound.ws, bound.wsPath = l.Address(), l.Path()
	}
	if s.unix != "" {
		path, err := filepath.Abs(s.unix)
		if err != nil {
			return nil, fmt.Errorf("socket path: %w", err)
		}
		l := listeners.NewUnix("unix", path)
		l.Mode, l.Logger = s.unixMode, log
		if err := srv.AddListener(l); err != nil {
			return nil, err
		}
		bound.unix = l.Address()
	}
	return bound, nil
}
