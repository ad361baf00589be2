package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"tempo/internal/budget"
	"tempo/internal/setup"
)

// The source of the llama.cpp that the libraries are made of is a git bundle in
// this package.
const (
	sourcePackage = "node-llama-cpp@3.22.1"
	sourceSHA256  = "a0d9dd80eacd2ab1cfe71aee57ac8a806487fd70b3d2a38fbec637752d9e5c5f"
	sourceBundle  = "package/llama/gitRelease.bundle"
)

//go:embed peers/CMakeLists.txt
var peersCMake []byte

// peers are the programs of llama.cpp that Tempo is measured against.
type peers struct{ server, batchedBench string }

// peersCommand builds the peers and does no more.
func peersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "peers", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			libDir, err := libraryDir()
			if err != nil {
				return err
			}
			p, err := ensurePeers(cmd.Context(), libDir, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", p.server, p.batchedBench)
			return err //nolint:wrapcheck // it says it all
		},
	}
}

// libraryDir is where the libraries are that all benchmarks run on.
func libraryDir() (string, error) {
	found, err := setup.Locate("")
	if found == nil || found.LlamaLib == "" { // the model may be missing
		return "", fmt.Errorf("find libraries: %w", err)
	}
	return found.LlamaLib, nil
}

// ensurePeers returns the peers for the libraries in libDir, built in the cache if
// they are not there yet. It says on w what takes long.
func ensurePeers(ctx context.Context, libDir string, w io.Writer) (*peers, error) {
	cache, err := setup.CacheDir()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(cache, "peers")
	// Another source, another way to build, other libraries: other peers.
	key := sha256.Sum256(append([]byte(sourceSHA256), peersCMake...))
	dir, err := cached(root, filepath.Base(libDir)+"-"+hex.EncodeToString(key[:4]), func(temp string) (string, error) {
		return buildPeers(ctx, temp, libDir, w)
	})
	if err != nil {
		return nil, err
	}
	return &peers{filepath.Join(dir, "llama-server"), filepath.Join(dir, "llama-batched-bench")}, nil
}

// cached returns a directory of the cache. If it is not there, fill makes it in another one,
// the rest of which goes afterwards.
func cached(root, name string, fill func(temp string) (made string, err error)) (string, error) {
	dir := filepath.Join(root, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	temp, err := os.MkdirTemp(root, ".making-")
	if err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(temp)
	made, err := fill(temp)
	if err != nil {
		return "", err
	}
	if err := os.Rename(made, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // nobody else was faster
			return "", fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return dir, nil
}

// buildPeers fetches, checks and builds in a directory, and returns where the programs are.
func buildPeers(ctx context.Context, dir, libDir string, w io.Writer) (string, error) {
	for _, tool := range buildTools() {
		if _, err := exec.LookPath(tool.name); err != nil {
			return "", &toolError{tool.name, tool.get}
		}
	}
	fmt.Fprintf(w, "fetching %s and building llama-server and llama-batched-bench from it, some minutes\n", sourcePackage)
	run := func(name string, args ...string) error { return runTool(ctx, dir, name, args...) }
	if err := run("npm", "pack", sourcePackage, "--ignore-scripts", "--loglevel", "error",
		"--no-update-notifier", "--cache", filepath.Join(dir, "npm")); err != nil {
		return "", err
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return "", fmt.Errorf("fetch %s: npm left %d archives", sourcePackage, len(archives))
	}
	bundle := filepath.Join(dir, "bundle")
	if err := takeBundle(archives[0], bundle, sourceSHA256); err != nil {
		return "", fmt.Errorf("fetch %s: %w", sourcePackage, err)
	}
	source := filepath.Join(dir, "source")
	if err := run("git", "clone", "--quiet", bundle, source); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(source, "CMakeLists.txt"), peersCMake, 0o644); err != nil {
		return "", fmt.Errorf("write CMakeLists.txt: %w", err)
	}
	if err := run("cmake", "-S", source, "-B", "build", "-DCMAKE_BUILD_TYPE=Release", "-DLIBS="+libDir); err != nil {
		return "", err
	}
	err = run("nice", "-n", "19", "cmake", "--build", "build", "--parallel", strconv.Itoa(budget.UsableCores()),
		"--target", "llama-server", "llama-batched-bench")
	return filepath.Join(dir, "build", "bin"), err
}

// takeBundle takes the bundle out of the archive, if the archive has the digest.
func takeBundle(archive, bundle, digest string) error {
	content, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	defer content.Close()
	h := sha256.New()
	if _, err := io.Copy(h, content); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("its SHA-256 is %s, pinned is %s", got, digest)
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	z, err := gzip.NewReader(content)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("there is no %s in it", sourceBundle)
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if h.Name != sourceBundle {
			continue
		}
		f, err := os.Create(bundle)
		if err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
		_, err = io.Copy(f, t)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
		return nil
	}
}

// runTool runs a program in a directory; its error has the last lines it wrote.
func runTool(ctx context.Context, dir, name string, args ...string) error {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return fmt.Errorf("make a log file: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w; its last lines:\n%s", name, cmp.Or(context.Cause(ctx), err), lastLines(log.Name()))
	}
	return nil
}

type buildTool struct{ name, get string }

func buildTools() []buildTool {
	return []buildTool{
		{"npm", "npm"}, {"git", "git"}, {"cmake", "cmake"}, {"make", "make"}, {"g++", "g++"},
	}
}

// toolError says that a program is missing that builds the peers.
type toolError struct{ tool, get string }

func (e *toolError) Error() string { return "build llama.cpp's programs: " + e.tool + " is missing" }

// Hint says how to get it.
func (e *toolError) Hint() string { return "install it (Debian, Ubuntu: apt install " + e.get + ")" }
