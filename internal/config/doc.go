// Package config reads the settings of the commands: a flag wins over the
// environment (TEMPO_*, and other tools' variables: NATS_* for the connection,
// HF_* for a model hub), that over a file (YAML, TOML or JSON), and that over the
// default.
//
// It is strict. A key or a TEMPO_* variable that does not exist is an error, as
// is a value of the wrong type or out of range; each error names the key, the
// value, what is allowed and where it came from, and all of them are reported at
// once. The keys of TEMPO's config.yaml are known: those that have no
// counterpart here are listed in Config.Unused.
package config
