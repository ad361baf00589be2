package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tempo/internal/config"
	"tempo/internal/hub"
	"tempo/internal/node"
)

// fetchModels fetches the models of the configuration that come from a hub and are
// not in the cache. The files of the others must be there: nobody waits for a
// download to learn of a wrong path.
func fetchModels(ctx context.Context, c *config.Config, screen *Screen, log *zap.Logger) error {
	log = log.Named("hub")
	var faults []error
	for _, m := range c.Engine.Models() {
		if !hub.Is(m.Source) {
			_, err := node.FindModel(m)
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	for _, m := range c.Engine.Models() {
		if !hub.Is(m.Source) {
			continue
		}
		model := zap.String("model", m.Name)
		p := newFetchProgress(m.Name, screen, func(done, total int64) {
			log.Info("fetching a model", model, zap.Int64("bytes", done), zap.Int64("total_bytes", total))
		})
		o := hubOptions(c, p)
		o.Note = func(text string) { log.Warn("fetching a model takes longer", model, zap.String("why", text)) }
		path, err := fetchModel(ctx, o, m, p)
		if err != nil {
			return err
		}
		if p.began {
			log.Info("the model is in the cache", model, zap.String("path", path))
		}
	}
	return nil
}

func hubOptions(c *config.Config, p *fetchProgress) hub.Options {
	return hub.Options{Endpoint: c.Hub.Endpoint, Token: c.Hub.Token, Progress: p.show}
}

// fetchModel fetches one model of a hub, and returns the path of its first file.
func fetchModel(ctx context.Context, o hub.Options, m config.Model, p *fetchProgress) (string, error) {
	r, err := hub.Parse(m.Source)
	if err != nil {
		return "", err
	}
	defer p.end()
	return hub.New(o).Fetch(ctx, r)
}

// fetchProgress shows how far a download is: in a status line on a terminal, in a line
// every few seconds elsewhere.
type fetchProgress struct {
	name   string
	screen *Screen
	line   func(done, total int64)
	now    func() time.Time

	began bool      // something is fetched
	start time.Time // when it began
	had   int64     // bytes that were there then
	said  time.Time // when the last line was
}

// sayEvery is the time between two lines.
const sayEvery = 5 * time.Second

func newFetchProgress(name string, screen *Screen, line func(done, total int64)) *fetchProgress {
	return &fetchProgress{name: name, screen: screen, line: line, now: time.Now}
}

// show says that done of total bytes are there.
func (p *fetchProgress) show(done, total int64) {
	now := p.now()
	if !p.began {
		p.began, p.start, p.had = true, now, done
	}
	if p.screen.Terminal() {
		p.screen.Status(p.status(done, total, now))
		return
	}
	if done == total || now.Sub(p.said) >= sayEvery {
		p.said = now
		p.line(done, total)
	}
}

// status is the status line, with the rate and what is left to wait where they are
// known.
func (p *fetchProgress) status(done, total int64, now time.Time) string {
	s := fmt.Sprintf("fetching %s: %d %% of %s", p.name, 100*done/max(total, 1), hub.Size(total))
	seconds := now.Sub(p.start).Seconds()
	if seconds < 1 || done <= p.had {
		return s
	}
	rate := float64(done-p.had) / seconds
	left := time.Duration(float64(total-done) / rate * float64(time.Second))
	return fmt.Sprintf("%s, %s/s, %s left", s, hub.Size(int64(rate)), left.Round(time.Second))
}

// end removes the status line.
func (p *fetchProgress) end() { p.screen.Status("") }
