package listeners

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issue writes a certificate for name and its key, signed by ca or by itself.
func issue(t *testing.T, dir, name string, ca *tls.Certificate) (files CertificateFiles, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: ca == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := tpl, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files = CertificateFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for path, block := range map[string]*pem.Block{
		files.Cert: {Type: "CERTIFICATE", Bytes: der}, files.Key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pair, err = tls.LoadX509KeyPair(files.Cert, files.Key); err != nil {
		t.Fatal(err)
	}
	return files, pair
}

func pool(pair tls.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(pair.Leaf)
	return p
}

// echoing serves l until the test ends: what comes is sent back.
func echoing(t *testing.T, l Listener) {
	t.Helper()
	if err := l.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- l.Serve(func(nc net.Conn) {
			_, _ = io.Copy(nc, nc) // a refused handshake is the test's business
			_ = nc.Close()
		})
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// talk sends a word over TLS and gets it back.
func talk(addr string, config *tls.Config) (*tls.Conn, error) {
	nc, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, config)
	if err != nil {
		return nil, err
	}
	return nc, chat(nc)
}

func chat(nc net.Conn) error {
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := nc.Write([]byte("word")); err != nil {
		return err
	}
	_, err := io.ReadFull(nc, make([]byte, 4))
	return err
}

func TestTLS_CertificateFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	files, first := issue(t, dir, "first", nil)
	var log strings.Builder
	cert, err := LoadCertificate(files, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	cert.now = func() time.Time { return now }
	l := NewTLS("tls", "127.0.0.1:0", cert.Config())
	echoing(t, l)
	open, err := talk(l.Address(), &tls.Config{RootCAs: pool(first)})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if v := open.ConnectionState().Version; v < tls.VersionTLS12 {
		t.Errorf("version %x", v)
	}

	_, second := issue(t, dir, "second", nil)
	late := now.Add(time.Hour) // a time stamp of its own, whatever the file system's grain
	if err := os.Chtimes(files.Cert, late, late); err != nil {
		t.Fatal(err)
	}
	now = now.Add(certificateCheck)
	other, err := talk(l.Address(), &tls.Config{RootCAs: pool(second)})
	if err != nil {
		t.Fatal("new connections do not get the new certificate:", err)
	}
	defer other.Close()
	if err := chat(open); err != nil {
		t.Error("the open connection ended:", err)
	}

	if err := os.WriteFile(files.Key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(certificateCheck)
	third, err := talk(l.Address(), &tls.Config{RootCAs: pool(second)})
	if err != nil {
		t.Fatal("a file that cannot be used took the listener along:", err)
	}
	defer third.Close()
	if !strings.Contains(log.String(), "going on with the old one") {
		t.Errorf("log: %s", log.String())
	}
}

func TestTLS_ClientCertificate(t *testing.T) {
	caFiles, ca := issue(t, t.TempDir(), "authority", nil)
	_, member := issue(t, t.TempDir(), "member", &ca)
	_, stranger := issue(t, t.TempDir(), "stranger", nil)
	for _, c := range []struct {
		auth                   tls.ClientAuthType
		nobody, known, foreign bool // let in
	}{
		{tls.NoClientCert, true, true, true},
		{tls.VerifyClientCertIfGiven, true, true, false},
		{tls.RequireAndVerifyClientCert, false, true, false},
	} {
		t.Run(c.auth.String(), func(t *testing.T) {
			files, own := issue(t, t.TempDir(), "server", nil)
			files.ClientCA, files.ClientAuth = caFiles.Cert, c.auth
			cert, err := LoadCertificate(files, nil)
			if err != nil {
				t.Fatal(err)
			}
			l := NewTLS("tls", "127.0.0.1:0", cert.Config())
			echoing(t, l)
			for _, who := range []struct {
				name string
				pair *tls.Certificate
				in   bool
			}{{"nobody", nil, c.nobody}, {"member", &member, c.known}, {"stranger", &stranger, c.foreign}} {
				config := &tls.Config{RootCAs: pool(own)}
				if who.pair != nil { // sent whatever the server asks for
					config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return who.pair, nil }
				}
				nc, err := talk(l.Address(), config)
				if nc != nil {
					nc.Close()
				}
				if (err == nil) != who.in {
					t.Errorf("%s: %v", who.name, err)
				}
			}
		})
	}
}

func TestTLS_BadFiles(t *testing.T) {
	dir := t.TempDir()
	files, _ := issue(t, dir, "server", nil)
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]CertificateFiles{
		"no certificate": {Cert: filepath.Join(dir, "none"), Key: files.Key},
		"no key":         {Cert: files.Cert, Key: empty},
		"no authority":   {Cert: files.Cert, Key: files.Key, ClientCA: empty},
	} {
		if _, err := LoadCertificate(f, nil); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
