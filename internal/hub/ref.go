package hub

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Scheme begins the address of a file on a hub.
const Scheme = "hf://"

// mainRevision is taken where an address names none.
const mainRevision = "main"

// Is reports whether a model's source is the address of a file on a hub.
func Is(source string) bool { return strings.HasPrefix(source, Scheme) }

// Ref names a file on a hub. [Parse] makes one; its fields are safe as parts of a
// path.
type Ref struct {
	Org, Repo string
	File      string // path in the repository with / between its parts, ends in .gguf
	Revision  string // branch, tag or commit
}

// Parse reads hf://ORG/REPO/FILE.gguf[@REVISION]; FILE may lie in directories of
// the repository, and the revision is main if none is given. The error is an
// *AddressError.
func Parse(address string) (Ref, error) {
	fail := func(fault string) (Ref, error) { return Ref{}, &AddressError{Address: address, Fault: fault} }
	rest, ok := strings.CutPrefix(address, Scheme)
	if !ok {
		return fail("it does not begin with " + Scheme)
	}
	r := Ref{Revision: mainRevision}
	if before, revision, ok := strings.Cut(rest, ending+"@"); ok {
		rest, r.Revision = before+ending, revision
	}
	parts := strings.SplitN(rest, "/", 3)
	if len(parts) < 3 {
		return fail("it has no file behind ORG/REPO")
	}
	r.Org, r.Repo, r.File = parts[0], parts[1], parts[2]
	for _, part := range []struct{ what, text string }{{"ORG", r.Org}, {"REPO", r.Repo}} {
		if !repositoryName.MatchString(part.text) {
			return fail(fmt.Sprintf("%s is %q, allowed are letters, digits, ., _ and -, at most 96, and first a letter or digit", part.what, part.text))
		}
	}
	if !strings.HasSuffix(r.File, ending) {
		return fail(fmt.Sprintf("FILE is %q, which does not end in %s", r.File, ending))
	}
	for _, part := range []struct{ what, text string }{{"FILE", r.File}, {"REVISION", r.Revision}} {
		if !safePath(part.text) || part.what == "REVISION" && len(url.PathEscape(part.text)) > maxPart { // it becomes one name
			return fail(fmt.Sprintf("%s is %q, allowed are printable characters in parts with / between them, at most %d bytes", part.what, part.text, maxPart))
		}
	}
	if m := splitFile.FindStringSubmatch(r.File); m != nil {
		if n, of := number(m[2]), number(m[3]); n < 1 || n > of {
			return fail(fmt.Sprintf("FILE is %q, and there is no part %d of %d", r.File, n, of))
		}
	}
	return r, nil
}

// ending is that of all files that are fetched.
const ending = ".gguf"

// maxPart is the longest file path and revision in bytes: file systems take names of
// 255, and other names are made of these.
const maxPart = 200

var (
	repositoryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$`)
	// splitFile is how llama.cpp names the files of a model in several.
	splitFile = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})\.gguf$`)
)

func number(digits string) int {
	n, _ := strconv.Atoi(digits) // five digits
	return n
}

// safePath reports whether a path can be used below a directory and shown.
func safePath(path string) bool {
	if len(path) > maxPart || !utf8.ValidString(path) || strings.ContainsFunc(path, func(r rune) bool { return r == '\\' || !unicode.IsPrint(r) }) {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.TrimSpace(part) != part {
			return false
		}
	}
	return true
}

// String is the address.
func (r Ref) String() string {
	s := Scheme + r.Org + "/" + r.Repo + "/" + r.File
	if r.Revision != mainRevision {
		s += "@" + r.Revision
	}
	return s
}

// Parts are the files of the model: the one, or, where its name is that of a part
// (NAME-00002-of-00003.gguf), all of them. llama.cpp opens the first.
func (r Ref) Parts() []Ref {
	m := splitFile.FindStringSubmatch(r.File)
	if m == nil {
		return []Ref{r}
	}
	list := make([]Ref, number(m[3]))
	for i := range list {
		list[i] = r
		list[i].File = fmt.Sprintf("%s-%05d-of-%s.gguf", m[1], i+1, m[3])
	}
	return list
}

// path is where the file lies in the cache at root.
func (r Ref) path(root string) string {
	return filepath.Join(root, "models", "hf", r.Org, r.Repo, url.PathEscape(r.Revision), filepath.FromSlash(r.File))
}

// url is where the file lies on the hub at endpoint.
func (r Ref) url(endpoint *url.URL) *url.URL {
	path := []string{r.Org, r.Repo, "resolve", url.PathEscape(r.Revision)}
	for part := range strings.SplitSeq(r.File, "/") {
		path = append(path, url.PathEscape(part))
	}
	return endpoint.JoinPath(path...)
}
