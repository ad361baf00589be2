package queue

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// What the server says of an index that it reads anew, as after a kill, is no warning; all else is.
func TestWarningsOfTheServer(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"Filestore [STATS] Stream state outdated, last block has additional entries, will rebuild":                        false,
		"Filestore [JOBS] Stream state outdated, found extra blocks, will rebuild":                                        false,
		"Filestore [JOBS] Recovering stream state from index errored: prior state file":                                   false,
		"Filestore [JOBS] TTL state is outdated; attempting to recover using linear scan (seq 439 to 458)":                false,
		"Filestore [JOBS] Recovering stream state from index errored: corrupt state":                                      true,
		"Filestore [JOBS] Stream state checksum did not match":                                                            true,
		"JetStream request queue has high pending count: Filestore [JOBS] Stream state outdated, as the first thing says": true,
	} {
		core, logs := observer.New(zap.DebugLevel)
		(&serverLogger{log: zap.New(core)}).Warnf("%s", text)
		entries := logs.All()
		require.Len(t, entries, 1)
		require.Equal(t, text, entries[0].ContextMap()["says"])
		require.Equal(t, want, entries[0].Level == zap.WarnLevel, text)
	}
}

func TestStartEmbeddedOnADirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "by", "it")
	first, err := StartEmbedded(EmbeddedOptions{Dir: dir}, nil)
	require.NoError(t, err)
	t.Cleanup(first.Stop)
	require.Empty(t, first.URL())

	_, err = StartEmbedded(EmbeddedOptions{Dir: dir}, nil)
	var inUse *DirInUseError
	require.ErrorAs(t, err, &inUse)
	require.Equal(t, DirInUseError{Dir: dir, PID: os.Getpid()}, *inUse)
	require.ErrorContains(t, err, dir)
	require.NotEmpty(t, inUse.Hint())

	first.Stop()
	second, err := StartEmbedded(EmbeddedOptions{Dir: dir}, nil)
	require.NoError(t, err)
	second.Stop()
}

func TestStartEmbeddedOnAnAddressInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dir := t.TempDir()
	for _, addr := range []string{l.Addr().String(), "nonsense"} {
		_, err = StartEmbedded(EmbeddedOptions{Dir: dir, Listen: addr}, nil)
		var taken *ListenError
		require.ErrorAs(t, err, &taken)
		require.ErrorContains(t, err, addr)
		require.NotEmpty(t, taken.Hint())
	}
	e, err := StartEmbedded(EmbeddedOptions{Dir: dir}, nil) // the directory was given back
	require.NoError(t, err)
	e.Stop()
}

func TestStartEmbeddedWithoutADirectory(t *testing.T) {
	t.Parallel()
	_, err := StartEmbedded(EmbeddedOptions{}, nil)
	require.ErrorContains(t, err, "no directory")
}

// The configuration that the README has people start is as safe as the embedded server.
func TestServerConfiguration(t *testing.T) {
	t.Parallel()
	o, err := server.ProcessConfigFile("../../deployments/nats/nats-server.conf")
	require.NoError(t, err)
	require.True(t, o.JetStream)
	require.True(t, o.SyncAlways)
	require.EqualValues(t, embeddedPayload, o.MaxPayload)
	require.NotEmpty(t, o.StoreDir, "it would be the directory for temporary files")
	require.Equal(t, "127.0.0.1:4222", net.JoinHostPort(o.Host, strconv.Itoa(o.Port)), "whoever can connect can read every prompt")
}

func TestConnectWhereNobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = Connect(t.Context(), Options{URL: "nats://me:secret@" + l.Addr().String()}, nil)
	var failed *ConnectError
	require.ErrorAs(t, err, &failed)
	require.ErrorContains(t, err, l.Addr().String())
	require.NotContains(t, err.Error(), "secret")
	require.Contains(t, failed.Hint(), "bin/nats-server -c")
}

func TestConnectEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, but never says a word
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Connect(ctx, Options{URL: l.Addr().String(), ConnectTimeout: 500 * time.Millisecond}, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestConnectWithWrongPassword(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, Username: "me", Password: "right"})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(5*time.Second))

	_, err = Connect(t.Context(), Options{URL: s.ClientURL(), User: "me", Password: "wrong"}, nil)
	var failed *ConnectError
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Hint(), "--password")

	_, err = Connect(t.Context(), Options{URL: s.ClientURL(), NKey: "missing.nk"}, nil)
	require.ErrorAs(t, err, &failed)
	require.Contains(t, failed.Hint(), "--nkey")

	c, err := Connect(t.Context(), Options{URL: s.ClientURL(), User: "me", Password: "right"}, nil)
	require.NoError(t, err)
	defer c.Close()
	err = c.EnsureTopology(t.Context(), Topology{})
	var missing *NoJetStreamError
	require.ErrorAs(t, err, &missing)
	require.Contains(t, missing.Hint(), "JetStream")
}
