package hub

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

	"golang.org/x/sys/unix"

	"tempo/internal/setup"
)

// manifest stands beside a file of the cache. It is written before the file gets its
// name, so a file without one is not taken.
type manifest struct {
	Source string `json:"source"`
	Hub    string `json:"hub"`              // address of the hub that it came from
	Commit string `json:"commit,omitempty"` // of the repository, where the hub tells it
	ETag   string `json:"etag,omitempty"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // of what was written, in hexadecimal
}

const manifestEnding = ".json"

var errDamaged = errors.New("not as its manifest says")

// Locate returns the path of a model that is whole in cacheDir ("" = setup.CacheDir),
// of its first file if it has several. It asks no hub, and checks manifests and sizes
// only. If the model is not there the error is a *NotFetchedError.
func Locate(cacheDir string, r Ref) (string, error) {
	root, err := rootOf(cacheDir)
	if err != nil {
		return "", err
	}
	return locate(root, r, checkSize)
}

// locate is Locate with a check of its own.
func locate(root string, r Ref, check func(path string) error) (string, error) {
	parts := r.Parts()
	var missing []Ref
	for _, part := range parts {
		if check(part.path(root)) != nil {
			missing = append(missing, part)
		}
	}
	if missing != nil {
		return "", &NotFetchedError{Ref: r, Files: missing}
	}
	return parts[0].path(root), nil
}

func rootOf(cacheDir string) (string, error) {
	if cacheDir == "" {
		return setup.CacheDir()
	}
	abs, err := filepath.Abs(cacheDir)
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return abs, nil
}

// checkSize returns nil if the file at path is there and has its size.
func checkSize(path string) error {
	m, err := readManifest(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("check file: %w", err)
	}
	if info.Size() != m.Bytes {
		return errDamaged
	}
	return nil
}

// checkBytes returns nil if the file at path is whole, byte for byte.
func checkBytes(ctx context.Context, path string) error {
	if err := checkSize(path); err != nil {
		return err
	}
	m, err := readManifest(path)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("check file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := copyInto(ctx, h, f); err != nil {
		return fmt.Errorf("check file: %w", err)
	}
	if hex.EncodeToString(h.Sum(nil)) != m.SHA256 {
		return errDamaged
	}
	return nil
}

func readManifest(path string) (manifest, error) {
	var m manifest
	content, err := os.ReadFile(path + manifestEnding)
	if err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	if err := json.Unmarshal(content, &m); err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	return m, nil
}

// copyInto copies until the end of r, or until ctx is done: files are large.
func copyInto(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	const step = 16 << 20
	var sum int64
	for {
		n, err := io.CopyN(w, r, step)
		sum += n
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return sum, fmt.Errorf("read: %w", err)
		}
	}
}

// keep makes the part at partPath the file at path, with its manifest. A kill between
// two steps leaves the part, which is then found complete.
func keep(partPath, path string, m manifest) error {
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // one that was damaged must not go with the new manifest
		return fmt.Errorf("replace file: %w", err)
	}
	if err := os.WriteFile(path+manifestEnding, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := os.Rename(partPath, path); err != nil {
		return fmt.Errorf("name file: %w", err)
	}
	return nil
}

// partEnding is that of files that are not complete.
const partEnding = ".part"

// partOf is where a file is gathered. What the hub calls the content stands in the
// name, so that no other content is ever continued.
func partOf(path, etag string) string {
	tag := sha256.Sum256([]byte(etag))
	return path + "." + hex.EncodeToString(tag[:8]) + partEnding
}

// sweep removes the parts of the file at path but one: they are of contents that the
// hub no longer has.
func sweep(path, but string) error {
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("read the cache directory: %w", err)
	}
	for _, e := range list {
		name := filepath.Join(filepath.Dir(path), e.Name())
		if name != but && strings.HasPrefix(name, path+".") && strings.HasSuffix(name, partEnding) {
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("clear the cache directory: %w", err)
			}
		}
	}
	return nil
}

// sizeOf is the size of a file, 0 if there is none.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// freeSpace is how much this user may write to the disk of dir, in bytes.
func freeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // other systems have other types
}
