package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"tempo/internal/config"
	"tempo/internal/doctor"
	"tempo/internal/report"
)

// errReported says that a command's own report tells why it failed; nothing more is
// to be printed.
var errReported = errors.New("the report says why")

func doctorCommand() *cobra.Command {
	var layers, local, asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether a job could run here: libraries, devices, model, NATS, memory",
		Long: `Looks at one thing after the other, says what it has found and what to do about
faults, and what memory a worker with these settings would plan. It loads nothing
and changes nothing; of a model that is still to be fetched from a hub it says what
would be fetched.

--json prints one object: libraries, devices, model (the first) and models (all), nats,
memory and, with --layers, layers, each with its status (ok, warn, fail or not
checked), problem, hint and what was found; can_run; and reasons, why no job could.
Names with _bytes are sizes.

Exit codes: 0 a job could run here, 1 none could, 2 wrong usage.`,
		Example: `  worker doctor --local
  worker doctor --layers --model /models/some-model.Q4_K_M.gguf --max-memory-gb 8
  worker doctor --json | jq .memory.total_bytes`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDoctor(cmd, doctor.Options{Layers: layers, Local: local}, asJSON)
		},
	}
	cmd.Flags().BoolVar(&layers, "layers", false, "list the memory of each layer")
	cmd.Flags().BoolVar(&local, "local", false, "leave NATS out, as submit run --local does")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	config.WorkerFlags(cmd.Flags())
	return cmd
}

func runDoctor(cmd *cobra.Command, o doctor.Options, asJSON bool) error {
	c, screen, log, err := beginQuietly(cmd)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	o.EngineArgs, o.Stderr, o.Queue = EngineArgs(c.Log, screen), screen, queueOptions(c)
	o.LibrariesSource, o.ModelSource = source(cmd, "llama-lib", "TEMPO_LLAMA_LIB"), source(cmd, "model", "TEMPO_MODEL")
	var printing error
	if !asJSON {
		o.Progress = func(s doctor.Section, r *doctor.Report) {
			printing = errors.Join(printing, report.DoctorSection(out, s, r))
		}
	}
	r := doctor.Examine(cmd.Context(), c, o, log)
	if asJSON {
		printing = printJSON(out, r)
	} else {
		printing = errors.Join(printing, report.DoctorVerdict(out, r))
	}
	switch {
	case printing != nil:
		return printing
	case !r.CanRun:
		return errReported
	}
	return nil
}

// beginQuietly is begin for commands whose report tells what others log: only
// warnings are logged, unless the user wants more.
func beginQuietly(cmd *cobra.Command) (*config.Config, *Screen, *zap.Logger, error) {
	c, err := load(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	if source(cmd, "log-level", "TEMPO_LOG_LEVEL") == fromFile && c.Log.Level == "info" {
		c.Log.Level = "warn"
	}
	return startLog(c)
}

// fromFile is the source of settings that neither a flag nor a variable gives.
const fromFile = "configuration file"

// source says where a setting came from that has a value.
func source(cmd *cobra.Command, flag, env string) string {
	if cmd.Flags().Changed(flag) {
		return "flag --" + flag
	}
	if _, ok := os.LookupEnv(env); ok {
		return "environment " + env
	}
	return fromFile
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}
