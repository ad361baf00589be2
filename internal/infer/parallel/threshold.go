package parallel

import "tempo/api"

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
