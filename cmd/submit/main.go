// Submit puts prompts on the queue and writes the results.
package main

import (
	"os"

	"tempo/internal/cli"
)

func main() {
	os.Exit(cli.Main(cli.Submit()))
}
