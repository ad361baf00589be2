package setup_test

import (
	"errors"
	"fmt"
	"log"
	"os"

	"tempo/internal/setup"
)

// A command looks for the pieces and says what to do where they are not.
func ExampleLocate() {
	empty, err := os.MkdirTemp("", "cache")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(empty)

	paths, err := setup.Locate(empty)
	if missing, ok := errors.AsType[*setup.NotSetUpError](err); ok {
		fmt.Println(err)
		fmt.Println("hint:", missing.Hint())
		return
	}
	fmt.Println(paths.LlamaLib, paths.Model)
	// Output:
	// look in the cache: the llama.cpp libraries and the model not found
	// hint: run make setup, or give --llama-lib DIR and --model PATH
}
