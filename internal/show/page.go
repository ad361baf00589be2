package show

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"path/filepath"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// Generator is the content of the page's generator tag: it marks files that Page wrote.
const Generator = "Tempo submit show"

// Page writes the page of results, of which there is at least one. It runs only the script
// of this package, whatever is in the results: they are escaped, and the page's policy
// names that script by its hash and forbids all that comes from elsewhere.
func Page(w io.Writer, f *Found) error {
	t, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return fmt.Errorf("read the template of the page: %w", err)
	}
	hash := sha256.Sum256([]byte(pageJS))
	v := pageView{
		File: filepath.Base(f.File), Several: len(f.Results) > 1, Columns: columns(), Left: f.Left, Generator: Generator,
		Style:  template.CSS(pageCSS),
		Script: template.JS(pageJS),
		Hash:   base64.StdEncoding.EncodeToString(hash[:]),
	}
	if f.File == "-" {
		v.File = "standard input"
	}
	for i := range f.Results {
		v.Results = append(v.Results, newResult(&f.Results[i], i+1))
	}
	v.Title = v.File
	if !v.Several {
		v.Title = v.Results[0].Name
	}
	if err := t.Execute(w, v); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}
