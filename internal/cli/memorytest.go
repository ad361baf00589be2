package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tempo/internal/config"
	"tempo/internal/memtest"
	"tempo/internal/report"
)

func memoryTestCommand() *cobra.Command {
	var seconds float64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "memory-test",
		Short: "Test that the memory limit holds: load, generate, and measure from outside",
		Long: `Starts a worker with these settings and a queue of its own, has it answer jobs that
fill its KV cache, and measures its processes every 20 ms with code of its own. Then
it starts once more with a limit that is a little too small, which must be refused
before anything is allocated.

--json prints one object: monitor, model_load, automatic_limits, generation, opposite
and verdict, each with its status (ok, fail or not run), problem, hint and what was
measured; and passed. Names with _bytes are sizes.

Exit codes: 0 the measured peak stayed within the limit and the other start was
refused, 1 not, 2 wrong usage.`,
		Example: `  worker memory-test --max-memory-gb 2
  worker memory-test --model /models/some-model.Q4_K_M.gguf --max-memory-gb 8 --seconds 60`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !(seconds > 0 && seconds <= maxSeconds) {
				return &UsageError{Command: cmd.CommandPath(), Err: fmt.Errorf("--seconds is %v, must be over 0 and at most %d", seconds, maxSeconds)}
			}
			return runMemoryTest(cmd, memtest.Options{Seconds: seconds}, asJSON)
		},
	}
	cmd.Flags().Float64Var(&seconds, "seconds", 20, "how long to generate, in `seconds`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of text")
	config.WorkerFlags(cmd.Flags())
	return cmd
}

// maxSeconds bounds --seconds to a day.
const maxSeconds = 24 * 60 * 60

func runMemoryTest(cmd *cobra.Command, o memtest.Options, asJSON bool) error {
	c, screen, log, err := beginQuietly(cmd)
	if err != nil {
		return err
	}
	if err := fetchModels(cmd.Context(), c, screen, log); err != nil {
		return interrupted(cmd.Context(), err)
	}
	out := cmd.OutOrStdout()
	o.EngineArgs, o.Stderr = EngineArgs(c.Log, screen), screen
	var printing error
	if !asJSON {
		o.Progress = func(s memtest.Step, r *memtest.Result) {
			printing = errors.Join(printing, report.MemoryTestStep(out, s, r))
		}
	}
	r, err := memtest.Run(cmd.Context(), c, o, log)
	if err != nil {
		return interrupted(cmd.Context(), err)
	}
	if asJSON {
		printing = printJSON(out, r)
	}
	switch {
	case printing != nil:
		return printing
	case !r.Passed:
		return errReported
	}
	return nil
}
