// Command comqtt is the broker and its tools in one program, one verb per file.
//
//	comqtt [serve] [flags]    run the broker
//	comqtt recover VERB       look at, check, repair and rewind a data directory
//	comqtt version            print the version
//
// Without a verb it serves. Every flag of serve is an environment variable too
// (COMQTT_ and the flag's name in capitals); a flag wins over the environment,
// the environment over the default. Exit codes are those of sysexits, in one
// table in exit.go; what goes wrong is said on standard error with the setting
// to change or the command to run next.
//
// This package is the only place that reads flags and environment, ends the
// process, or installs signal handlers.
package main
