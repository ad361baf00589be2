package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const shown = `{"custom_id":"a","response":null,"error":null,"tempo":{"parallel":{"text":"x","positions":1,"sets":[[{"token_id":1,"text":"x","probability":1}]]}}}` + "\n"

// runsShow runs submit show; it returns what it printed.
func runsShow(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := Submit()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetArgs(append([]string{"show"}, args...))
	err := execute(t.Context(), cmd)
	return out.String(), err
}

func file(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestShow(t *testing.T) {
	t.Chdir(t.TempDir())
	file(t, ".", "r.jsonl", shown+shown)
	file(t, ".", "r.jsonl:1", shown)
	require.NoError(t, os.MkdirAll("deep/er", 0o755))
	for name, test := range map[string]struct {
		stdin string
		args  []string
		path  string // of the page; "-" = standard output
		has   string
	}{
		"beside":           {"", []string{"r.jsonl"}, "r.html", `<nav id="index"`},
		"replaced":         {"", []string{"r.jsonl:2"}, "r.html", "line 2 of r.jsonl"},
		"a name like this": {"", []string{"r.jsonl:1"}, "r.html", "line 1 of r.jsonl:1"},
		"elsewhere":        {"", []string{"r.jsonl", "-o", "deep/er/page.html"}, "deep/er/page.html", `<nav id="index"`},
		"standard input":   {shown, []string{"-"}, "result.html", "line 1 of standard input"},
		"a line of it":     {shown + shown, []string{"-o", "-", "--", "-:2"}, "-", "line 2 of standard input"},
		"by id":            {strings.Replace(shown, `"a"`, `"b"`, 1) + shown, []string{"-", "--custom-id", "a", "-o", "-"}, "-", "line 2 of"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := runsShow(t, test.stdin, test.args...)
			require.NoError(t, err)
			if test.path != "-" {
				require.Equal(t, test.path+"\n", out)
				page, err := os.ReadFile(test.path)
				require.NoError(t, err)
				out = string(page)
			}
			require.Contains(t, out, test.has)
		})
	}
}

func TestShowFails(t *testing.T) {
	t.Chdir(t.TempDir())
	file(t, ".", "r.jsonl", shown)
	file(t, ".", "page.html", shown)
	file(t, ".", "other.jsonl", shown)
	file(t, ".", "other.html", "<p>mine</p>")
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no file":              {nil, 2, "submit: show takes one file of results"},
		"two files":            {[]string{"a", "b"}, 2, "hint: submit show --help"},
		"line 0":               {[]string{"r.jsonl:0"}, 2, `after the colon stands a line of r.jsonl, got "0", allowed: a number, from 1`},
		"a line too large":     {[]string{"r.jsonl:99999999999999999999"}, 2, `got "99999999999999999999", allowed: a number`},
		"line and id":          {[]string{"r.jsonl:1", "--custom-id", "a"}, 2, "choose by one of them"},
		"open what is no file": {[]string{"r.jsonl", "-o", "-", "--open"}, 2, "--open needs a file"},
		"not there":            {[]string{"none.jsonl"}, 1, "submit: read the results: open none.jsonl: no such file"},
		"not there, a line":    {[]string{"none.jsonl:3"}, 1, "submit: read the results: open none.jsonl: no such file"},
		"not a line":           {[]string{"r.jsonl:abc"}, 2, `"r.jsonl:abc": after the colon stands a line of r.jsonl, got "abc", allowed: a number, from 1; --custom-id chooses by the name`},
		"no line":              {[]string{"r.jsonl:"}, 2, `got "", allowed: a number, from 1`},
		"not there, a colon":   {[]string{"none:x"}, 1, "open none:x: no such file"},
		"out of range":         {[]string{"r.jsonl:2"}, 1, "there is no line 2 in r.jsonl: it has 1"},
		"over the results":     {[]string{"page.html"}, 1, "page.html is there, and is not a page of submit show"},
		"over them by name":    {[]string{"r.jsonl", "-o", "./r.jsonl"}, 1, "./r.jsonl is the file of the results"},
		"in the way":           {[]string{"other.jsonl"}, 1, "hint: name another file with -o"},
		"a missing directory":  {[]string{"r.jsonl", "-o", "typo/er/page.html"}, 1, "write the page typo/er/page.html: there is no directory typo/er\nhint: make typo/er, or name another file with -o"},
		"no directory":         {[]string{"r.jsonl", "-o", "page.html/page.html"}, 1, "write the page: "},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := runsShow(t, "", test.args...)
			require.Empty(t, out)
			var says bytes.Buffer
			require.Equal(t, test.code, Report(&says, "submit", err))
			require.Contains(t, says.String(), test.says)
		})
	}
	require.NoDirExists(t, "typo")
	_, err := runsShow(t, "", "other.jsonl", "-o", "other.html")
	require.NoError(t, err, "the user has named it")
}

func TestShowOpens(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the program has another name here")
	}
	t.Chdir(t.TempDir())
	programs := t.TempDir()
	t.Setenv("PATH", programs)
	file(t, ".", "r.jsonl", shown)
	fails := func(says string) {
		t.Helper()
		out, err := runsShow(t, "", "r.jsonl", "--open")
		require.Equal(t, "r.html\n", out, "it is written")
		var printed bytes.Buffer
		require.Equal(t, ExitFailed, Report(&printed, "submit", err))
		require.Contains(t, printed.String(), says)
		require.Contains(t, printed.String(), "hint: it is written: open ")
	}
	fails("the page cannot be opened: there is no xdg-open here")
	opener := file(t, programs, "xdg-open", "#!/bin/sh\nexit 3\n")
	require.NoError(t, os.Chmod(opener, 0o700))
	fails("the page cannot be opened: xdg-open: exit status 3")
	file(t, programs, "xdg-open", "#!/bin/sh\necho \"$1\" > opened\n")
	_, err := runsShow(t, "", "r.jsonl", "--open")
	require.NoError(t, err)
	opened, err := os.ReadFile("opened")
	require.NoError(t, err)
	page, err := filepath.Abs("r.html")
	require.NoError(t, err)
	require.Equal(t, page+"\n", string(opened))
}
