package setup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	manifestName = "manifest.json"
	tempPrefix   = ".fetching-"
)

// manifest says what an entry of the cache consists of. It is written before the
// entry gets its name, so an entry without one is none.
type manifest struct {
	Package string         `json:"package"`
	SHA256  string         `json:"sha256"` // of the archive
	Files   []manifestFile `json:"files"`
}

type manifestFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// depth says how closely an entry is looked at.
type depth int

const (
	sizes   depth = iota // names and sizes
	digests              // every byte
)

var errDamaged = errors.New("not as the manifest says")

// path returns what is asked for of the entry: a file, or its directory.
func (a artifact) path(root string) string {
	return filepath.Join(root, filepath.FromSlash(a.dir), a.file)
}

// check returns nil if the entry is in the cache and whole.
func (a artifact) check(root string, d depth) error {
	dir := filepath.Join(root, filepath.FromSlash(a.dir))
	content, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	var m manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if m.Package != a.spec || m.SHA256 != a.sha256 {
		return errDamaged
	}
	for _, f := range m.Files {
		path := filepath.Join(dir, f.Name)
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("check entry: %w", err)
		}
		if info.Size() != f.Bytes {
			return errDamaged
		}
		if d == digests {
			if sum, err := sum(path); err != nil || sum != f.SHA256 {
				return errDamaged
			}
		}
	}
	for name, target := range a.links {
		if to, err := os.Readlink(filepath.Join(dir, name)); err != nil || to != target {
			return errDamaged
		}
	}
	return nil
}

// damaged returns the artifacts whose entries are missing or not whole.
func damaged(root string, list []artifact) []artifact {
	var out []artifact
	for _, a := range list {
		if a.check(root, digests) != nil {
			out = append(out, a)
		}
	}
	return out
}

// install fetches an artifact and puts it in the cache: everything happens in a
// temporary directory beside the entry, which then gets the entry's name.
func install(ctx context.Context, o Options, root string, a artifact) error {
	temp, err := os.MkdirTemp(root, tempPrefix+"*")
	if err != nil {
		return fmt.Errorf("set up %s: %w", a.title, err)
	}
	defer os.RemoveAll(temp)
	archive, err := fetch(ctx, o, a, temp)
	if err != nil {
		return err
	}
	got, err := sum(archive)
	if err != nil {
		return fmt.Errorf("verify %s: %w", a.spec, err)
	}
	if got != a.sha256 {
		return &DigestError{Package: a.spec, Got: got, Want: a.sha256, Part: a.part}
	}
	fresh := filepath.Join(temp, "entry")
	if err := fill(fresh, archive, a); err != nil {
		return fmt.Errorf("unpack %s: %w", a.spec, err)
	}
	entry := filepath.Join(root, filepath.FromSlash(a.dir))
	if err := errors.Join(os.RemoveAll(entry), os.MkdirAll(filepath.Dir(entry), 0o755)); err != nil {
		return fmt.Errorf("set up %s: %w", a.title, err)
	}
	if err := os.Rename(fresh, entry); err != nil {
		return fmt.Errorf("set up %s: %w", a.title, err)
	}
	return nil
}

// fill makes the entry's directory: files, links, manifest.
func fill(dir, archive string, a artifact) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make entry: %w", err)
	}
	m := manifest{Package: a.spec, SHA256: a.sha256}
	found := make(map[string]bool)
	err := a.client.unpack(archive, a.keep, func(name string, r io.Reader) error {
		f, err := save(filepath.Join(dir, name), r)
		m.Files = append(m.Files, f)
		found[name] = true
		return err
	})
	if err != nil {
		return err
	}
	if a.file != "" && !found[a.file] {
		return fmt.Errorf("the package has no %s", a.file)
	}
	for name, target := range a.links {
		if !found[target] {
			return fmt.Errorf("the package has no %s", target)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("make entry: %w", err)
		}
	}
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestName), append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// save writes r to a new file and returns its line of the manifest.
func save(path string, r io.Reader) (manifestFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return manifestFile{}, fmt.Errorf("make entry: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), r)
	if err := errors.Join(err, f.Close()); err != nil {
		return manifestFile{}, fmt.Errorf("make entry: %w", err)
	}
	return manifestFile{filepath.Base(path), n, hex.EncodeToString(h.Sum(nil))}, nil
}

// sum returns the SHA-256 of a file in hexadecimal.
func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("take digest: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("take digest: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sweep removes what an interrupted run left. The lock must be held, or it would
// take a running one's directory away.
func sweep(root string) error {
	list, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("read the cache directory: %w", err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
				return fmt.Errorf("clear the cache directory: %w", err)
			}
		}
	}
	return nil
}
