package policy

// Every exception of every rule, with its reason. An exception that nothing
// needs fails its test.

var arrowExceptions = exceptions{}

var homeExceptions = exceptions{
	"cmd/datasync -> github.com/rs/zerolog":   "makes the logger that it hands to exporter",
	"exporter/trial -> github.com/rs/zerolog": "hands the demo's logger on to exporter",
}

var functionExceptions = exceptions{}

var fileExceptions = exceptions{}

var interfaceExceptions = exceptions{}

var packageExceptions = exceptions{
	"cmd/datasync":  "one file a sub-command, as the layout says",
	"feeds/adapt":   "one file a source format, as the layout says",
	"feeds/journal": "one log: its files are the steps of its life over one set of private types, and a package between them would export what nobody else may touch",
}

var constructorExceptions = exceptions{}

var sleepExceptions = exceptions{}
