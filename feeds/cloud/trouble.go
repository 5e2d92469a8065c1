package cloud

import (
	"time"

	"datasync/feeds/outage"
)

// grace is how long a throttled or broken call may be tried again before it is worth a word.
const grace = 15 * time.Second

// NewTrouble tells of AWS's errors as Judge and Brief see them; allow is what the
// identity must be allowed, for a hint.
func NewTrouble(prefix, allow string, on func(error)) *outage.Teller {
	return outage.New(told(prefix, allow, on))
}

func told(prefix, allow string, on func(error)) outage.Options {
	return outage.Options{Prefix: prefix, On: on, Passing: passing, Grace: grace, Brief: Brief,
		Judge: func(err error) (class, hint string) { return Judge(err, allow) }}
}
