package e2e

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// connection is a connection of somebody who knows nothing of Tempo.
type connection struct{ *nats.Conn }

func plainNATS(t *testing.T, url string) connection {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return connection{nc}
}

func (c connection) keys(t *testing.T, bucket string) ([]string, error) {
	t.Helper()
	js, err := jetstream.New(c.Conn)
	require.NoError(t, err)
	kv, err := js.KeyValue(t.Context(), bucket)
	if err != nil {
		return nil, err
	}
	lister, err := kv.ListKeys(t.Context())
	if err != nil {
		return nil, err
	}
	var keys []string
	for k := range lister.Keys() {
		keys = append(keys, k)
	}
	return keys, nil
}
