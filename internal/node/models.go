package node

import (
	"errors"
	"fmt"
	"os"

	"tempo/internal/config"
	"tempo/internal/hub"
	"tempo/internal/setup"
)

// ModelFile is a model that a worker serves.
type ModelFile struct {
	Name string // that jobs ask for
	Path string // of its GGUF file, the first if it has several
}

// Models finds the models of a worker, in the order of the configuration: those that
// it names, else that of worker setup. It fetches nothing. The error joins those of
// [FindModel].
func Models(c *config.Config) ([]ModelFile, error) {
	wanted := c.Engine.Models()
	if len(wanted) == 0 {
		wanted = []config.Model{{}}
	}
	list := make([]ModelFile, len(wanted))
	faults := make([]error, len(wanted))
	for i, m := range wanted {
		list[i], faults[i] = FindModel(m)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return list, nil
}

// FindModel finds the file of one model, of the zero value that of worker setup. It
// fetches nothing: *hub.NotFetchedError says that the model of a hub is not in the
// cache, *ModelError that there is no such file, *setup.NotSetUpError that nothing is
// set up.
func FindModel(m config.Model) (ModelFile, error) {
	if m == (config.Model{}) {
		found, _ := setup.Locate("")
		if found == nil || found.Model == "" {
			return ModelFile{}, &setup.NotSetUpError{Parts: []setup.Part{setup.Model}}
		}
		return ModelFile{Name: config.ParseModel(found.Model).Name, Path: found.Model}, nil
	}
	if hub.Is(m.Source) {
		r, err := hub.Parse(m.Source)
		if err != nil {
			return ModelFile{}, err
		}
		path, err := hub.Locate("", r)
		return ModelFile{Name: m.Name, Path: path}, err
	}
	info, err := os.Stat(m.Source)
	if err == nil && info.IsDir() {
		err = errors.New("it is a directory")
	}
	if err != nil {
		return ModelFile{}, &ModelError{Path: m.Source, Err: err}
	}
	return ModelFile{Name: m.Name, Path: m.Source}, nil
}

// ModelError says that there is no model file where it should be.
type ModelError struct {
	Path string
	Err  error
}

func (e *ModelError) Error() string {
	err := e.Err
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err // the path is said already
	}
	return fmt.Sprintf("open the model file %s: %v", e.Path, err)
}

func (e *ModelError) Unwrap() error { return e.Err }

// Hint says what to check.
func (e *ModelError) Hint() string {
	return "give the path of a GGUF file with --model; without it the model of `worker setup` is taken"
}
