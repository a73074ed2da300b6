package wal

import "testing"

// engine returns the engine that the options name.
func (o *Options) engine() OpenEngine {
	if o.Engine == nil {
		return OpenTidwall
	}
	return o.Engine
}

// optionsFunc is options, with an engine.
type optionsFunc func(testing.TB) Options

// eachEngine runs a test over both engines: what a Log promises does not depend
// on who writes its files.
func eachEngine(t *testing.T, test func(t *testing.T, options optionsFunc)) {
	t.Helper()
	for _, name := range []string{EngineTidwall, EngineNative} {
		open, err := EngineNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			test(t, func(t testing.TB) Options {
				o := options(t)
				o.Engine = open
				return o
			})
		})
	}
}
