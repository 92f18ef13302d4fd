"""vqcore as something that is run and recorded: a trial, the final training, the journal, MLflow."""

from trainables.interruption import while_importing

while_importing()
