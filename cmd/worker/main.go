// Worker takes jobs from the queue and answers them with llama.cpp.
package main

import (
	"os"

	"tempo/internal/cli"
)

func main() {
	os.Exit(cli.Main(cli.Worker()))
}
