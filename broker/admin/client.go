package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
)

// ErrNoBroker says that no broker answers at the admin socket.
var ErrNoBroker = errors.New("admin: no broker answers")

// ErrNotFound says that there is no such session or message.
var ErrNotFound = errors.New("admin: not found")

// Client asks a running broker through its admin socket.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the broker on a data directory. It connects when
// it is used first.
func NewClient(dir string) *Client {
	c := &Client{path: filepath.Join(dir, SocketName)}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			short, done, err := shortPath(c.path)
			if err != nil {
				return nil, err
			}
			defer done()
			var d net.Dialer
			return d.DialContext(ctx, "unix", short)
		},
	}}
	return c
}

// Close closes the connection.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request. The answer's body has to be closed.
func (c *Client) do(ctx context.Context, method, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "comqtt", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("admin: ask: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("%w at %s: %w", ErrNoBroker, c.path, op.Err)
		}
		return nil, fmt.Errorf("admin: ask: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	var p problem
	if resp.StatusCode == http.StatusNotFound {
		return nil, ErrNotFound
	}
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Error == "" {
		p.Error = resp.Status
	}
	return nil, fmt.Errorf("admin: the broker refused: %s", p.Error)
}

// get decodes one value.
func (c *Client) get(ctx context.Context, method, path string, query url.Values, v any) error {
	resp, err := c.do(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("admin: read the answer: %w", err)
	}
	return nil
}

// lines decodes a value a line.
func lines[T any](ctx context.Context, c *Client, path string, query url.Values, fn func(v T) error) error {
	resp, err := c.do(ctx, http.MethodGet, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	for dec := json.NewDecoder(resp.Body); ; {
		var v T
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("admin: read the answer: %w", err)
		}
		if err := fn(v); err != nil {
			return err
		}
	}
}

// Sessions calls fn for the durable sessions, in the order in which they began.
func (c *Client) Sessions(ctx context.Context, fn func(s Session) error) error {
	return lines(ctx, c, "/v1/sessions", nil, fn)
}

// Session returns one session. ErrNotFound.
func (c *Client) Session(ctx context.Context, client string) (*SessionDetail, error) {
	var d SessionDetail
	if err := c.get(ctx, http.MethodGet, "/v1/session", url.Values{"client": {client}}, &d); err != nil {
		return nil, err
	}
	return &d, nil
}

// RemoveSession ends a session and returns the index of the record that says so.
// ErrNotFound.
func (c *Client) RemoveSession(ctx context.Context, client string) (uint64, error) {
	var d Done
	err := c.get(ctx, http.MethodDelete, "/v1/session", url.Values{"client": {client}}, &d)
	return d.Index, err
}

// Retained calls fn for the retained messages that match a filter.
func (c *Client) Retained(ctx context.Context, filter string, fn func(r Retained) error) error {
	return lines(ctx, c, "/v1/retained", url.Values{"filter": {filter}}, fn)
}

// RetainedMessage returns one retained message. ErrNotFound.
func (c *Client) RetainedMessage(ctx context.Context, topic string) (*RetainedMessage, error) {
	var m RetainedMessage
	if err := c.get(ctx, http.MethodGet, "/v1/message", url.Values{"topic": {topic}}, &m); err != nil {
		return nil, err
	}
	return &m, nil
}

// ClearRetained removes a retained message and returns the index of the record
// that says so. ErrNotFound.
func (c *Client) ClearRetained(ctx context.Context, topic string) (uint64, error) {
	var d Done
	err := c.get(ctx, http.MethodDelete, "/v1/message", url.Values{"topic": {topic}}, &d)
	return d.Index, err
}

// Hold keeps the broker's log and archive as they are until release is called.
func (c *Client) Hold(ctx context.Context, base bool) (h Held, release func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	query := url.Values{}
	if base {
		query.Set("base", "1")
	}
	resp, err := c.do(ctx, http.MethodPost, "/v1/hold", query)
	if err != nil {
		cancel()
		return h, nil, err
	}
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
		cancel()
		return h, nil, errors.Join(fmt.Errorf("admin: read the answer: %w", err), resp.Body.Close())
	}
	return h, func() {
		cancel()
		_ = resp.Body.Close() // cutting it is the message
	}, nil
}
