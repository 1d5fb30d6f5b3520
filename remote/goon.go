package remote

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/image"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
)

// goOn goes on with a start that was cut off: its job is brought up as by Start, in the same experiment. What the start left on the host is removed first. An error before
// that changes nothing.
func (r *Run) goOn(ctx context.Context, e replicate.Experiment, a Again) (err error) {
	if r.started, err = holdStart(r.project, r.ID); err != nil {
		return err
	}
	defer r.started()
	start := Notes(r.project)[r.ID].Start
	if start == nil {
		return r.takeUp(ctx, e) // another command was faster
	}
	j, plan, err := r.again(ctx, *start, a)
	if err != nil {
		return err
	}
	if err := r.host.hasJob(ctx, r.ID); replicate.KindOf(err) != replicate.NotFound {
		return cmp.Or(err, startedBy(r.ID))
	}
	if err := r.host.Remove(ctx, r.ID); err != nil {
		return err
	}
	host := r.host
	open := func(ctx context.Context) (*Host, survey, error) {
		host.look = host.lookAtGPUs(ctx, j.GPUs)
		found, err := host.survey(ctx, j, plan)
		return host, found, err
	}
	return r.bringUp(ctx, j, plan, open, func(ctx context.Context) error {
		if err := r.join(ctx, e, replicate.Building); err != nil {
			return err
		}
		return r.noteStart(j)
	})
}

// again returns the job of a start, with what it needs, if it would be the same.
func (r *Run) again(ctx context.Context, start Begun, a Again) (Job, *image.Plan, error) {
	j := start.Job
	j.Project, j.Target, j.Env = r.project, r.target, map[string]string{}
	err := a.Complete(&j, start.Env)
	if err == nil {
		err = r.hasValues(j, start.Env)
	}
	if err == nil {
		err = r.hasSameCode(ctx, a)
	}
	if err != nil {
		return j, nil, err
	}
	plan, err := r.client.plan(ctx, j)
	return j, plan, err
}

// hasValues says which of its variables a job lacks.
func (r *Run) hasValues(j Job, variables []string) error {
	var missing []string
	for _, name := range variables {
		if _, ok := j.Env[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return replicate.Errorf(replicate.Usage, "%s was started with values of %s, which are kept nowhere", r.ID.Short(), strings.Join(missing, ", ")).
		WithHint("%s=… replicate attach %s", strings.Join(missing, "=… "), r.ID.Short())
}

// maxNamed is how many paths an error names.
const maxNamed = 3

// hasSameCode says where the working directory is not what was recorded when the run was started.
func (r *Run) hasSameCode(ctx context.Context, a Again) error {
	if r.project.NotSaved != "" {
		return nil
	}
	tree, err := a.Code(ctx)
	if err != nil {
		return err
	}
	changed, err := tree.Changed(ctx, repository.SurveyOptions{Root: r.project.Root, Ignore: r.project.Config.Ignore, Skip: notCode(r.project)})
	if err != nil || len(changed) == 0 {
		return err
	}
	text := strings.Join(changed[:min(len(changed), maxNamed)], ", ")
	if more := len(changed) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return replicate.Errorf(replicate.Conflict, "the working directory is not as it was when %s was started: %s changed", r.ID.Short(), text).
		WithHint("replicate run starts a new one as it is now; replicate checkout %s brings back what it was", r.ID.Short())
}

// notCode is what is no part of a working directory though it is in it: the storage of the project, where that is a directory.
func notCode(p *project.Project) []string {
	if u, err := url.Parse(p.StorageURL); err == nil && isLocal(p.StorageURL) {
		return []string{u.Path}
	}
	return nil
}
