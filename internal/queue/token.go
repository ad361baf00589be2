package queue

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"tempo/api"
)

// Token turns any string into one token of a subject, which is also a safe part
// of a consumer's name and of a key: bytes in [A-Za-z0-9_-] stay, every other
// byte becomes =XX (hexadecimal), and the empty string becomes "=". Different
// strings have different tokens; [Untoken] is the way back.
func Token(s string) string {
	if s == "" {
		return "="
	}
	var b strings.Builder
	for i := range len(s) {
		if safe(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "=%02X", s[i])
		}
	}
	return b.String()
}

// Untoken returns the string of a token. It is an error if token is not what
// [Token] makes of any string.
func Untoken(token string) (string, error) {
	if token == "=" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		if token[i] != '=' {
			b.WriteByte(token[i])
			continue
		}
		var c byte
		if n, err := fmt.Sscanf(token[i:], "=%02X", &c); n != 1 || err != nil {
			return "", fmt.Errorf("read token %q: = without two hexadecimal digits", token)
		}
		b.WriteByte(c)
		i += 2
	}
	if s := b.String(); Token(s) == token {
		return s, nil
	}
	return "", fmt.Errorf("read token %q: no string has it", token)
}

func safe(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// jobSubject is the subject of a job; a job without a priority is a normal one.
func jobSubject(j api.Job) string {
	priority := j.Priority
	if priority == "" {
		priority = api.Normal
	}
	return "jobs." + Token(string(priority)) + "." + Token(j.Model) + "." + Token(j.Batch) + "." + Token(j.ID)
}

// jobsOf filters the jobs of a batch for one model.
func jobsOf(model, batch string) string {
	return "jobs.*." + Token(model) + "." + Token(batch) + ".>"
}

// jobsOfBatch filters the jobs of a batch for all models.
func jobsOfBatch(batch string) string { return "jobs.*.*." + Token(batch) + ".>" }

func resultSubject(batch, job string) string { return "results." + Token(batch) + "." + Token(job) }

func resultsOf(batch string) string { return "results." + Token(batch) + ".>" }

// lastToken is the token behind the last dot of a subject.
func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// consumerName names the consumer of a batch and model. No token has a +, so the
// name is unique; the server takes names up to 255 bytes, and long ones are hashed.
func consumerName(model, batch string) string {
	name := Token(model) + "+" + Token(batch)
	if len(name) > 200 {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	}
	return name
}
