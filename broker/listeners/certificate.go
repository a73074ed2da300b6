package listeners

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// CertificateFiles are PEM files.
type CertificateFiles struct {
	Cert string // certificate and, after it, those between it and the root
	Key  string // private key
	// ClientCA has the authorities whose client certificates are accepted. Empty:
	// those of the system. Without meaning when ClientAuth asks for none.
	ClientCA   string
	ClientAuth tls.ClientAuthType
}

// certificateCheck is how often the files are looked at, at most.
const certificateCheck = 10 * time.Second

// Certificate is a key pair that follows its files: a handshake that comes
// more than ten seconds after the last look sees whether they have changed, and
// new connections get what is in them then. Those that are open go on. Files
// that cannot be used leave the old pair in place. It may be used by many
// goroutines.
type Certificate struct {
	files CertificateFiles
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	config  *tls.Config
	stamp   stamp
	checked time.Time
}

// LoadCertificate reads the files. log gets what happens to them later, nil
// discards it.
func LoadCertificate(files CertificateFiles, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{files: files, log: logger(log), now: time.Now}
	if err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Config returns what a listener needs. TLS 1.2 is the least it speaks.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return c.current(), nil
		},
	}
}

// current returns the configuration of a new connection.
func (c *Certificate) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.checked) >= certificateCheck {
		c.checked = now
		if stampOf(c.files) != c.stamp {
			if err := c.reload(); err != nil {
				c.log.Error("the certificate was changed and cannot be used, going on with the old one", "error", err)
			} else {
				c.log.Info("certificate read again", "file", c.files.Cert)
			}
		}
	}
	return c.config
}

// Reload reads the files now. After an error the old pair stays.
func (c *Certificate) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked = c.now()
	return c.reload()
}

func (c *Certificate) reload() error {
	c.stamp = stampOf(c.files) // before reading: what changes meanwhile is read next time
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("listeners: load certificate %s with key %s: %w", c.files.Cert, c.files.Key, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: c.files.ClientAuth}
	if c.files.ClientCA != "" {
		if config.ClientCAs, err = loadPool(c.files.ClientCA); err != nil {
			return err
		}
	}
	c.config = config
	return nil
}

func loadPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("listeners: load client authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("listeners: load client authorities %s: %w", file, errNoCertificate)
	}
	return pool, nil
}

var errNoCertificate = errors.New("no certificate in the file")

// stamp tells whether files were written anew.
type stamp [3]struct {
	size    int64
	changed time.Time
}

func stampOf(files CertificateFiles) (s stamp) {
	for i, name := range []string{files.Cert, files.Key, files.ClientCA} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			s[i].size, s[i].changed = info.Size(), info.ModTime()
		}
	}
	return s
}
