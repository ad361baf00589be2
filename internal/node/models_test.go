package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/internal/config"
	"tempo/internal/hub"
	"tempo/internal/hub/hubtest"
	"tempo/internal/setup"
)

func TestModels(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	here := filepath.Join(dir, "here=a.Q4_1.gguf")
	require.NoError(t, os.WriteFile(here, []byte("x"), 0o600))
	models := func(list ...string) ([]ModelFile, error) {
		return Models(&config.Config{Engine: config.Engine{Model: list}})
	}
	_, err := models()
	require.ErrorIs(t, err, setup.ErrNotSetUp)

	const remote = "hf://org/repo/q4/big-q4_0-00001-of-00002.gguf@v1"
	_, err = models("a="+here, remote, filepath.Join(dir, "none.gguf"), dir)
	var missing *ModelError
	require.ErrorAs(t, err, &missing)
	var fetch *hub.NotFetchedError
	require.ErrorAs(t, err, &fetch)
	require.ErrorContains(t, err, "none.gguf: no such file or directory")
	require.ErrorContains(t, err, dir+": it is a directory")
	require.Equal(t, "fetch it with worker setup --model "+remote, fetch.Hint())

	h := hubtest.New(t, "", map[string][]byte{
		"org/repo/q4/big-q4_0-00001-of-00002.gguf": []byte("one"), "org/repo/q4/big-q4_0-00002-of-00002.gguf": []byte("two"),
	})
	r, err := hub.Parse(remote)
	require.NoError(t, err)
	path, err := hub.New(hub.Options{Endpoint: h.URL}).Fetch(t.Context(), r)
	require.NoError(t, err)
	list, err := models("a="+here, remote, here)
	require.NoError(t, err)
	require.Equal(t, []ModelFile{{"a", here}, {"big", path}, {"here=a", here}}, list)

	_, err = models("x=hf://org")
	var address *hub.AddressError
	require.ErrorAs(t, err, &address)
}
