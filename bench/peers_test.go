package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// archive makes a package with one file.
func archive(t *testing.T, name, content string) (file, digest string) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644}))
	_, err := w.Write([]byte(content))
	require.NoError(t, err)
	require.NoError(t, errors.Join(w.Close(), z.Close()))
	file = filepath.Join(t.TempDir(), "package.tgz")
	require.NoError(t, os.WriteFile(file, b.Bytes(), 0o644))
	sum := sha256.Sum256(b.Bytes())
	return file, hex.EncodeToString(sum[:])
}

func TestBundleIsTakenOnlyOutOfThePinnedPackage(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "bundle")
	file, digest := archive(t, sourceBundle, "the source")
	require.ErrorContains(t, takeBundle(file, out, sourceSHA256), "pinned is "+sourceSHA256)
	require.NoFileExists(t, out)
	require.NoError(t, takeBundle(file, out, digest))
	content, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "the source", string(content))
	file, digest = archive(t, "package/other", "")
	require.ErrorContains(t, takeBundle(file, out, digest), "there is no "+sourceBundle)
}

// Not parallel: the environment is the process's.
func TestPeersAreBuiltOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	_, err := ensurePeers(t.Context(), "/lib/v1", t.Output())
	require.ErrorContains(t, err, "npm is missing")
	var hinted interface{ Hint() string }
	require.ErrorAs(t, err, &hinted)
	require.Equal(t, "install it (Debian, Ubuntu: apt install npm)", hinted.Hint())

	// With all tools there, npm is the first that is run.
	tools := t.TempDir()
	for _, tool := range buildTools() {
		script := "#!/bin/sh\necho " + tool.name + " was called\nexit 3\n"
		require.NoError(t, os.WriteFile(filepath.Join(tools, tool.name), []byte(script), 0o755))
	}
	t.Setenv("PATH", tools)
	_, err = ensurePeers(t.Context(), "/lib/v1", t.Output())
	require.ErrorContains(t, err, "run npm: exit status 3; its last lines:\nnpm was called")
	root := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "tempo", "peers")
	left, err := os.ReadDir(root)
	require.NoError(t, err)
	require.Empty(t, left, "half a build does not stay")

	// What is there is taken as it is, without tools.
	t.Setenv("PATH", "")
	key := sha256.Sum256(append([]byte(sourceSHA256), peersCMake...))
	dir := filepath.Join(root, "v1-"+hex.EncodeToString(key[:4]))
	require.NoError(t, os.Mkdir(dir, 0o755))
	p, err := ensurePeers(t.Context(), "/lib/v1", t.Output())
	require.NoError(t, err)
	require.Equal(t, peers{filepath.Join(dir, "llama-server"), filepath.Join(dir, "llama-batched-bench")}, *p)
}

// state is the letter that the system has for what a process does.
func state(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

func TestPeerIsPausedAndEnded(t *testing.T) {
	t.Parallel()
	p, err := startPeer(exec.Command("sleep", "1000"), t.TempDir())
	require.NoError(t, err)
	pid := p.cmd.Process.Pid
	is := func(want string) func() bool { return func() bool { return state(t, pid) == want } }
	require.NoError(t, p.pause())
	require.Eventually(t, is("T"), 10*time.Second, time.Millisecond)
	require.NoError(t, p.resume())
	require.Eventually(t, is("S"), 10*time.Second, time.Millisecond)
	require.NoError(t, p.pause())
	require.NoError(t, p.end(), "also when it is paused")
	require.Error(t, p.err)
	require.NoError(t, p.end(), "twice is no error")
	_, err = startPeer(exec.Command("/nowhere/program"), t.TempDir())
	require.ErrorContains(t, err, "start program")
}

func TestLibrariesOfAProcess(t *testing.T) {
	t.Parallel()
	const maps = `7f00-7f01 r--p 00000000 fe:00 1 /lib/ours/libllama.v0.5.0.so
7f01-7f02 r-xp 00001000 fe:00 1 /lib/ours/libllama.v0.5.0.so
7f02-7f03 r--p 00000000 fe:00 2 /lib/ours/libggml-cpu-zen4.so
7f03-7f04 r--p 00000000 fe:00 3 /lib/ours/libllama-common.so
7f04-7f05 r--p 00000000 fe:00 4 /usr/lib/libc.so.6
7f05-7f06 rw-p 00000000 00:00 0 
`
	require.Equal(t, []string{"/lib/ours/libggml-cpu-zen4.so", "/lib/ours/libllama.v0.5.0.so"}, libraries([]byte(maps)))
	require.ErrorContains(t, sameLibraries(1<<30, os.Getpid()), "see which libraries are loaded")

	p, err := startPeer(exec.Command("sleep", "1000"), t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, p.end()) }()
	require.ErrorContains(t, sameLibraries(p.cmd.Process.Pid, p.cmd.Process.Pid), "not the same libraries", "none is not the same")
}

func TestTimeOfAProcess(t *testing.T) {
	t.Parallel()
	got, err := parseStat("7 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 1 0 100 0 0")
	require.NoError(t, err)
	require.Equal(t, 1750*time.Millisecond, got)
	for _, bad := range []string{"", "7 (a) S 1", "7 (a) S 1 1 1 0 -1 4194560 100 0 0 0 x 25 0 0"} {
		_, err := parseStat(bad)
		require.Error(t, err)
	}
	_, err = cpuTime(os.Getpid())
	require.NoError(t, err)
}

func TestWavesAreRead(t *testing.T) {
	t.Parallel()
	const said = "\n{\"pl\": 16, \"t\": 2.5, \"speed\": 1}\nnoise\n{\"pl\": 16, \"t\": 0.25}\n"
	calls := 0
	took, err := readWaves(strings.NewReader(said), func() error { calls++; return nil })
	require.NoError(t, err)
	require.Equal(t, []time.Duration{2500 * time.Millisecond, 250 * time.Millisecond}, took)
	require.Equal(t, 1, calls)
	wrong := errors.New("wrong libraries")
	_, err = readWaves(strings.NewReader(said), func() error { return wrong })
	require.ErrorIs(t, err, wrong)
	_, err = readWaves(strings.NewReader("{\"pl\": 16}\n"), func() error { return nil })
	require.ErrorContains(t, err, `{\"pl\": 16}`)
}

func TestSearchTakesWhatIsBetter(t *testing.T) {
	t.Parallel()
	rates := map[string]float64{"a": 10, "b": 20, "b x": 20.1, "b y": 21, "b y z": 5}
	var tried []string
	best, err := search(t.Context(), [][]string{{"a"}, {"b"}}, [][]string{{"x"}, {"y"}, {"z"}},
		func(_ context.Context, settings []string) (float64, error) {
			tried = append(tried, strings.Join(settings, " "))
			return rates[tried[len(tried)-1]], nil
		})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "b x", "b y", "b y z"}, tried, "0.5 % is noise")
	require.Equal(t, []string{"b", "y"}, best)
	broken := errors.New("broken")
	_, err = search(t.Context(), [][]string{{"a"}}, nil, func(context.Context, []string) (float64, error) { return 0, broken })
	require.ErrorIs(t, err, broken)
}
