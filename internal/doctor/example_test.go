package doctor_test

import (
	"context"
	"fmt"

	"tempo/internal/config"
	"tempo/internal/doctor"
)

func ExampleExamine() {
	c, err := config.Load(nil, []string{"TEMPO_MODEL=/none.gguf", "TEMPO_LLAMA_LIB=/none", "TEMPO_DEVICE=cpu"})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := doctor.Examine(context.Background(), c, doctor.Options{Local: true}, nil)
	fmt.Println(r.CanRun)
	fmt.Println(r.Model.Status, r.Model.Problem)
	fmt.Println(r.Memory.Status, r.Memory.Problem)
	// Output:
	// false
	// fail open the model file /none.gguf: no such file or directory
	// not checked it needs the libraries
}
