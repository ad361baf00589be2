package setup

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// CUDA says whether the libraries are those with CUDA. They serve a CPU too, but
// are 143 MB instead of 11.
type CUDA string

// Choices of CUDA; "" is Auto.
const (
	Auto    CUDA = "auto" // with it if the system has an NVIDIA GPU
	With    CUDA = "yes"
	Without CUDA = "no"
)

// Options say what [Run] does. The zero value fetches everything into the user's
// cache and says nothing.
type Options struct {
	CacheDir string    // "" = [CacheDir]
	Only     Part      // "" = all
	CUDA     CUDA      // "" = Auto
	Progress io.Writer // gets a bar if it is a terminal, a few lines if not; nil = nothing
	NPM      string    // command to run; "" = npm
	Python   string    // command to run; "" = python3
}

// Paths says where the pieces are.
type Paths struct {
	LlamaLib   string // directory of the libraries; "" if it was not asked for or not found
	Model      string // the GGUF file; "" likewise
	Downloaded int64  // bytes of the archives that were fetched; 0 if all was there
}

// CacheDir returns the directory that holds the pieces: tempo in the user's
// cache directory ($XDG_CACHE_HOME, else ~/.cache).
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return filepath.Join(dir, "tempo"), nil
}

// Run makes sure that the pieces are in the cache: it checks those that are
// there byte for byte, fetches what is missing or damaged, and says where they
// are. Two at once are safe, in one process or several: the second waits.
//
// Its errors have hints: *MissingError if a package client is not installed,
// *ClientError if one fails, *DigestError if it brings something else than what
// is pinned, *SystemError if there is nothing for this system. What was there
// before an error stays; half a piece never does.
func Run(ctx context.Context, o Options) (*Paths, error) {
	return run(ctx, o, here(), hasGPU())
}

func run(ctx context.Context, o Options, c catalog, gpu bool) (*Paths, error) {
	wanted, err := choose(o, c, gpu)
	if err != nil {
		return nil, err
	}
	root, err := rootOf(o.CacheDir)
	if err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	var downloaded int64
	// Looked at without the lock first: a cache that is whole may be read-only.
	if len(damaged(root, wanted)) > 0 {
		if downloaded, err = repair(ctx, o, root, wanted); err != nil {
			return nil, err
		}
	}
	p := &Paths{Downloaded: downloaded}
	for _, a := range wanted {
		p.set(root, a)
		fmt.Fprintf(o.Progress, "%s: %s\n", a.title, a.path(root))
	}
	return p, nil
}

// repair fetches, under the lock, what is missing or damaged, and returns the
// bytes that it fetched.
func repair(ctx context.Context, o Options, root string, wanted []artifact) (int64, error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return 0, fmt.Errorf("make the cache directory: %w", err)
	}
	unlock, err := Lock(ctx, filepath.Join(root, "setup.lock"), func() {
		fmt.Fprintln(o.Progress, "waiting for another setup of the same cache")
	})
	if err != nil {
		return 0, err
	}
	defer unlock()
	if err := sweep(root); err != nil {
		return 0, err
	}
	var fetched int64
	for _, a := range damaged(root, wanted) {
		if err := install(ctx, o, root, a); err != nil {
			return fetched, err
		}
		fetched += a.bytes
	}
	return fetched, nil
}

// choose returns the artifacts that the options ask for.
func choose(o Options, c catalog, gpu bool) ([]artifact, error) {
	switch o.Only {
	case "", Lib, Model:
	default:
		return nil, fmt.Errorf("choose what to set up: part is %q, allowed are %s and %s", o.Only, Lib, Model)
	}
	switch o.CUDA {
	case "", Auto, With, Without:
	default:
		return nil, fmt.Errorf("choose what to set up: CUDA is %q, allowed are %s, %s and %s", o.CUDA, Auto, With, Without)
	}
	var list []artifact
	if o.Only != Model {
		lib := c.cpu
		if o.CUDA == With || o.CUDA != Without && gpu && c.cuda != nil {
			lib = c.cuda
		}
		if lib == nil {
			return nil, &SystemError{System: runtime.GOOS + "/" + runtime.GOARCH, CUDA: o.CUDA == With}
		}
		list = append(list, *lib)
	}
	if o.Only != Lib {
		list = append(list, *c.model)
	}
	return list, nil
}

// Locate says where the pieces are in cacheDir ("" = [CacheDir]) and fetches
// nothing. The libraries are those with CUDA if they are there and the system
// has an NVIDIA GPU, or if there are no others. It checks names and sizes only.
//
// If a piece is not there the error is a *NotSetUpError (errors.Is
// [ErrNotSetUp]), and the paths still name what is.
func Locate(cacheDir string) (*Paths, error) {
	return locate(cacheDir, here(), hasGPU())
}

func locate(cacheDir string, c catalog, gpu bool) (*Paths, error) {
	root, err := rootOf(cacheDir)
	if err != nil {
		return nil, err
	}
	libs := []*artifact{c.cpu, c.cuda}
	if gpu {
		libs = []*artifact{c.cuda, c.cpu}
	}
	p := &Paths{}
	for _, a := range append(libs, c.model) {
		if a == nil || a.part == Lib && p.LlamaLib != "" {
			continue
		}
		if a.check(root, sizes) == nil {
			p.set(root, *a)
		}
	}
	var missing NotSetUpError
	if p.LlamaLib == "" {
		missing.Parts = append(missing.Parts, Lib)
	}
	if p.Model == "" {
		missing.Parts = append(missing.Parts, Model)
	}
	if len(missing.Parts) > 0 {
		return p, &missing
	}
	return p, nil
}

func (p *Paths) set(root string, a artifact) {
	if a.part == Model {
		p.Model = a.path(root)
	} else {
		p.LlamaLib = a.path(root)
	}
}

func rootOf(cacheDir string) (string, error) {
	if cacheDir == "" {
		return CacheDir()
	}
	abs, err := filepath.Abs(cacheDir)
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return abs, nil
}

// hasGPU reports whether the NVIDIA driver has a device here. It only chooses
// what to fetch; whether the device can be used is for the worker to say.
func hasGPU() bool {
	for _, device := range []string{"/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1"} {
		if _, err := os.Stat(device); err == nil {
			return true
		}
	}
	return false
}
