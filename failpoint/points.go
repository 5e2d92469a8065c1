package failpoint

// Point is an instant between two durable steps: what goes before it is on
// disk, or at its destination, and what comes after it is not.
type Point string

// The points, in the order in which an event meets them.
const (
	SegmentMade Point = "a segment is made"
	SinksKnown  Point = "sinks are known"
	Written     Point = "a commit is written"
	Synced      Point = "a commit is synced"
	Answering   Point = "the source is not answered yet"
	LanesBegun  Point = "lanes are begun"
	Decided     Point = "a drop is decided"
	Recorded    Point = "a drop is recorded"
	Stored      Point = "an object is stored"
	Described   Point = "a manifest is stored"
	Completed   Point = "a drop is completed, and that is not durable"
	Placed      Point = "a stream's position has moved, and that is not durable"
)

// Points are all of them.
var Points = []Point{SegmentMade, SinksKnown, Written, Synced, Answering, LanesBegun, Decided, Recorded, Stored, Described, Completed, Placed}
