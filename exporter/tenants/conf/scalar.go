package conf

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parse reads text as the type says. Its error does not hold the value unless
// it may be shown.
func (v *Value) parse() error {
	var err error
	switch v.typ.kind {
	case kindString:
		err = v.parseString()
	case kindBool:
		err = v.parseBool()
	case kindInt:
		v.i, err = v.parseInt()
	case kindFloat:
		v.f, err = strconv.ParseFloat(v.text, 64)
		if err != nil || math.IsNaN(v.f) {
			err = fmt.Errorf("%s is not a number", v.shown())
		}
	case kindSize:
		v.i, err = parseSize(v.text)
	case kindDuration:
		var d time.Duration
		d, err = parseDuration(v.text)
		v.i = int64(d)
	case kindList, kindObject:
		return errors.New("a scalar cannot be this")
	}
	if err == nil {
		err = v.bounds()
	}
	if errors.Is(err, errShape) {
		err = fmt.Errorf("%s %w", v.shown(), err)
	}
	return err
}

// errShape marks an error that wants the value in front of it.
var errShape = errors.New("")

func shape(format string, args ...any) error {
	return fmt.Errorf(format+"%w", append(args, errShape)...)
}

func (v *Value) parseString() error {
	if v.text == "" {
		return errors.New("this is empty; give a value, or remove the key")
	}
	if len(v.typ.enum) > 0 && !slices.Contains(v.typ.enum, v.text) {
		if n := Nearest(v.text, v.typ.enum); n != "" && !v.ref {
			return shape("is not one of %s; did you mean %q?", strings.Join(v.typ.enum, ", "), n)
		}
		return shape("is unknown; use %s", OneOfWords(v.typ.enum))
	}
	if v.typ.check == nil {
		return nil
	}
	if err := v.typ.check(v.text); err != nil {
		// The check may quote the value.
		if v.ref {
			return fmt.Errorf("the value that the reference gives is not %s", v.typ.format)
		}
		if v.typ.secret {
			return fmt.Errorf("the value is not %s", v.typ.format)
		}
		return err
	}
	return nil
}

func (v *Value) parseBool() error {
	switch v.text {
	case "true":
		v.b = true
	case "false":
	default:
		return shape("is not a boolean; use true or false")
	}
	return nil
}

func (v *Value) parseInt() (int64, error) {
	i, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), 10, 64)
	if err != nil {
		return 0, shape("is not a whole number, as 1000000 is")
	}
	return i, nil
}

func (v *Value) bounds() error {
	t := v.typ
	if !t.bounded {
		return nil
	}
	x := v.f
	if t.kind != kindFloat {
		x = float64(v.i)
	}
	switch {
	case x < t.min:
		return shape("is too small; the least is %s", t.show(t.min))
	case t.max > t.min && x > t.max:
		return shape("is too large; the most is %s", t.show(t.max))
	}
	return nil
}

// show writes a bound as a person would.
func (t *Type) show(x float64) string {
	switch t.kind {
	case kindDuration:
		return showDuration(time.Duration(x))
	case kindSize:
		return showSize(int64(x))
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

func showSize(n int64) string {
	for _, u := range []struct {
		name string
		n    int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.n && n%u.n == 0 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

var units = map[string]float64{
	"": 1, "b": 1,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

var sizeForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$`)

func parseSize(s string) (int64, error) {
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		return 0, shape("is not a size; write one as 10MiB, 50GiB or 1GB")
	}
	unit, ok := units[strings.ToLower(m[2])]
	if !ok {
		return 0, shape("has an unknown unit; use B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB")
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n*unit > 1<<60 {
		return 0, shape("is too large for a size; the most is 1048576TiB")
	}
	return int64(n * unit), nil
}

var days = regexp.MustCompile(`^([0-9]{1,5})d(.*)$`)

func parseDuration(s string) (time.Duration, error) {
	var whole time.Duration
	rest := s
	if m := days.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, shape("is not a duration; write one as 10s, 5m, 24h or 7d")
		}
		whole, rest = time.Duration(n)*24*time.Hour, m[2]
		if rest == "" {
			return whole, nil
		}
	}
	d, err := time.ParseDuration(rest)
	switch {
	case err != nil && regexp.MustCompile(`^[0-9]+$`).MatchString(s):
		return 0, shape("has no unit; write it as %ss, %sm or %sh", s, s, s)
	case err != nil:
		return 0, shape("is not a duration; write one as 10s, 5m, 24h or 7d")
	case d < 0:
		return 0, shape("is negative; write a duration as 10s, 5m, 24h or 7d")
	}
	return whole + d, nil
}
