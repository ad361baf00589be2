package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tempo/internal/show"
)

type showOptions struct {
	output   string // "" = beside the file
	customID string
	open     bool
}

func showCommand() *cobra.Command {
	var o showOptions
	cmd := &cobra.Command{
		Use:   "show FILE[:LINE]|-",
		Short: "Draw the sets of parallel generation as a page of HTML",
		Long: fmt.Sprintf(`Reads a file of results, as submit run -o writes it, and draws those that list their
sets (return_parallel_sets) on a page that needs no network and no other file: the most
likely path as a trunk, the other tokens of each set as its branches. Several results
stand on one page with an index, at most %d; a line or --custom-id chooses one.

The page is written beside FILE, with .html for its ending (result.html for standard
input), or where -o says ("-" = standard output); its path is printed.

Exit codes: 0 the page is written, 1 failed, 2 wrong usage.`, show.MaxResults),
		Example: `  submit show results.jsonl --open
  submit show results.jsonl:3 -o page.html
  submit show results.jsonl --custom-id fox-tale`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &UsageError{Command: cmd.CommandPath(), Err: fmt.Errorf(`show takes one file of results, or "-" for standard input; got %d: %q`, len(args), args)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runShow(cmd, args[0], o) },
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", `page to write; "-" = standard output`)
	cmd.Flags().StringVar(&o.customID, "custom-id", "", "draw the result with this `ID`")
	cmd.Flags().BoolVar(&o.open, "open", false, "open the page in a browser")
	return cmd
}

func runShow(cmd *cobra.Command, arg string, o showOptions) error {
	file, line, err := fileAndLine(arg)
	switch {
	case err != nil:
		return &UsageError{Command: cmd.CommandPath(), Err: err}
	case line > 0 && o.customID != "":
		return &UsageError{Command: cmd.CommandPath(), Err: errors.New("a line and --custom-id are given: choose by one of them")}
	case o.open && o.output == "-":
		return &UsageError{Command: cmd.CommandPath(), Err: errors.New("--open needs a file: leave -o - out")}
	}
	page, err := drawPage(cmd.InOrStdin(), file, show.Choice{Line: line, CustomID: o.customID})
	if err != nil {
		return err
	}
	if o.output == "-" {
		if _, err := cmd.OutOrStdout().Write(page); err != nil {
			return fmt.Errorf("write the page: %w", err)
		}
		return nil
	}
	path := o.output
	if path == "" {
		path = pagePath(file)
		if err := replaceable(path); err != nil {
			return err
		}
	}
	if err := writePage(path, file, page); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), path); err != nil {
		return fmt.Errorf("print the path of the page: %w", err)
	}
	if o.open {
		return openPage(path)
	}
	return nil
}

// fileAndLine takes FILE[:LINE] apart. A file whose own name ends so is that file.
func fileAndLine(arg string) (file string, line int, err error) {
	at := strings.LastIndexByte(arg, ':')
	if at < 0 || isThere(arg) {
		return arg, 0, nil
	}
	file, after := arg[:at], arg[at+1:]
	if isNumber := after != "" && strings.Trim(after, "0123456789") == ""; !isNumber && !isThere(file) {
		return arg, 0, nil // the colon is one of a name
	}
	if line, err = strconv.Atoi(after); err != nil || line < 1 {
		return "", 0, fmt.Errorf("%q: after the colon stands a line of %s, got %q, allowed: a number, from 1; --custom-id chooses by the name", arg, file, after)
	}
	return file, line, nil
}

// isThere reports whether there is such a file, or standard input is meant.
func isThere(file string) bool {
	_, err := os.Stat(file)
	return err == nil || file == "-"
}

// drawPage makes the page in memory, so that a failure leaves nothing behind.
func drawPage(stdin io.Reader, file string, c show.Choice) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read the results: %w", err)
		}
		defer f.Close()
		in = f
	}
	found, err := show.Read(in, file, c)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	if err := show.Page(&page, found); err != nil {
		return nil, err
	}
	return page.Bytes(), nil
}

// pagePath is where the page of a file is written.
func pagePath(file string) string {
	if file == "-" {
		return "result.html"
	}
	return strings.TrimSuffix(file, filepath.Ext(file)) + ".html"
}

// replaceable returns an error if somebody else's file is at path, which the user has
// not named: only a page of this command is replaced.
func replaceable(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look what is where the page goes: %w", err)
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return fmt.Errorf("look what is where the page goes: %w", err)
	}
	if len(head) > 0 && !bytes.Contains(head, []byte(show.Generator)) {
		return &occupiedError{path}
	}
	return nil
}

// occupiedError says that a file is in the page's way.
type occupiedError struct{ path string }

func (e *occupiedError) Error() string {
	return e.path + " is there, and is not a page of submit show"
}

// Hint says how to write the page.
func (e *occupiedError) Hint() string { return "name another file with -o, or this one, to replace it" }

// noDirectoryError says that the directory of a page is missing.
type noDirectoryError struct{ path, dir string }

func (e *noDirectoryError) Error() string {
	return fmt.Sprintf("write the page %s: there is no directory %s", e.path, e.dir)
}

// Hint says what to do.
func (e *noDirectoryError) Hint() string { return "make " + e.dir + ", or name another file with -o" }

// writePage writes the page, but not over the results. Its directory must be there: what is
// written in a moment is no reason to make one of a name that was misspelt.
func writePage(path, results string, page []byte) error {
	if in, err := os.Stat(results); err == nil {
		if out, err := os.Stat(path); err == nil && os.SameFile(in, out) {
			return fmt.Errorf("write the page: %s is the file of the results", path)
		}
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return &noDirectoryError{path, dir}
	}
	if err := os.WriteFile(path, page, 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// openLimit is how long the program that opens a page may take to say that it cannot;
// one that is still there then shows it.
const openLimit = 5 * time.Second

// openPage shows a page in the user's browser.
func openPage(path string) error {
	name := "xdg-open"
	if runtime.GOOS == "darwin" {
		name = "open"
	}
	program, err := exec.LookPath(name)
	if err != nil {
		return &openError{path, fmt.Errorf("there is no %s here", name)}
	}
	if path, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("open the page: %w", err)
	}
	cmd := exec.Command(program, path)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return &openError{path, err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return &openError{path, fmt.Errorf("%s: %w", name, err)}
		}
	case <-time.After(openLimit):
	}
	return nil
}

// openError says that a page is written, but not shown.
type openError struct {
	path string
	err  error
}

func (e *openError) Error() string { return fmt.Sprintf("the page cannot be opened: %v", e.err) }

func (e *openError) Unwrap() error { return e.err }

// Hint says that nothing else is amiss.
func (e *openError) Hint() string { return "it is written: open " + e.path + " in a browser" }
