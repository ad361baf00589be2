package setup

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
)

// unpack calls keep for every member of the client's archive (npm: a tar file in
// gzip, pip: a zip file) that one of the patterns matches, with the last part of
// its name, so that no member's name can lead out of a directory.
func (c client) unpack(archive string, patterns []string, keep func(name string, r io.Reader) error) error {
	wanted := func(name string) bool {
		for _, p := range patterns {
			if ok, err := path.Match(p, name); err == nil && ok {
				return true
			}
		}
		return false
	}
	if c == pip {
		return unzip(archive, wanted, keep)
	}
	return untar(archive, wanted, keep)
}

func untar(archive string, wanted func(string) bool, keep func(string, io.Reader) error) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if h.Typeflag == tar.TypeReg && wanted(h.Name) {
			if err := keep(path.Base(h.Name), t); err != nil {
				return err
			}
		}
	}
}

func unzip(archive string, wanted func(string) bool, keep func(string, io.Reader) error) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	defer z.Close()
	for _, m := range z.File {
		if !m.Mode().IsRegular() || !wanted(m.Name) {
			continue
		}
		r, err := m.Open()
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := errors.Join(keep(path.Base(m.Name), r), r.Close()); err != nil {
			return err
		}
	}
	return nil
}
