package queue

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// What the server is shows on the client's own connection: encrypted, and as its user.
func TestServerOverTLS(t *testing.T) {
	t.Parallel()
	https := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1
	certificates, ca := https.TLS.Certificates, https.Certificate()
	https.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), 0o600))

	with, without := server.NewAccount("with"), server.NewAccount("without")
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		TLS: true, TLSConfig: &tls.Config{Certificates: certificates, MinVersion: tls.VersionTLS13}, TLSTimeout: 5,
		Accounts: []*server.Account{with, without},
		Users:    []*server.User{{Username: "a", Password: "secret", Account: with}, {Username: "b", Password: "secret", Account: without}},
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(5*time.Second))
	account, err := s.LookupAccount("with")
	require.NoError(t, err)
	require.NoError(t, account.EnableJetStream(nil, nil))

	connected := func(user string) *Client {
		c, err := Connect(t.Context(), Options{URL: s.ClientURL(), User: user, Password: "secret", TLSCA: file}, nil)
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	c := connected("a")
	require.Equal(t, server.VERSION, c.ServerVersion())
	require.NoError(t, c.CheckJetStream(t.Context()))
	_, err = c.Claims(t.Context(), "gpu")
	require.ErrorIs(t, err, ErrNoStreams)

	c = connected("b")
	require.Equal(t, server.VERSION, c.ServerVersion())
	var missing *NoJetStreamError
	require.ErrorAs(t, c.CheckJetStream(t.Context()), &missing)
	soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // it would be asked for ever
	defer cancel()
	_, err = c.Claims(soon, "gpu")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, ErrNoStreams)
}
