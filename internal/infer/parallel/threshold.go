package parallel

import "tempo/api"

// rounding is by how much what is calculated may be off, as a part of it: a set's
// probabilities come to no more than 1 + rounding.
const rounding = 1e-6

// MostApart is how wide a set can be whose members have sequences of their own, be it while they
// are decoded or also afterwards: the engine keeps no more apart.
const MostApart = 64

// Widest is how many tokens a set of the job can have where most (1 or more) are allowed: no
// more than it asks for, than the engine keeps apart where it must, and than can be as probable
// as its lowest threshold, whatever the model.
func Widest(o *api.Parallel, most int) int {
	if o.Isolate || o.Removal != nil {
		most = min(most, MostApart)
	}
	if o.MaxTokens > 0 {
		most = min(most, o.MaxTokens)
	}
	lowest := o.Threshold // the curves stay between the two
	if o.Dynamic != nil {
		lowest = min(lowest, o.Dynamic.Final)
	}
	return int(min(float64(most), (1+rounding)/lowest))
}

// threshold is how probable a token must be at the position-th of so many positions, from 0.
func threshold(o *api.Parallel, position, positions int) float64 {
	d := o.Dynamic
	if d == nil || positions < 2 {
		return o.Threshold
	}
	x := min(1, float64(position)/float64(positions-1))
	return o.Threshold + (d.Final-o.Threshold)*rise(d, x)
}

// rise is how much of the way the curve has gone at the part x of the positions.
func rise(d *api.DynamicThreshold, x float64) float64 {
	switch d.Curve {
	case api.CurveBezier:
		left := 1 - x
		return 3*left*left*x*d.P1 + 3*left*x*x*d.P2 + x*x*x
	case api.CurveReLU:
		if x <= d.ActivationPoint {
			return 0
		}
		return (x - d.ActivationPoint) / (1 - d.ActivationPoint)
	}
	return x
}
